"""The paper's tables and figures: the runs that each needs, and our results next to the published ones."""

from kdaug.study.paper.figures import FIGURES, PaperFigure
from kdaug.study.paper.reproduce import write_reproduction
from kdaug.study.paper.results import study_recipes
from kdaug.study.paper.studies import STUDIES, PaperStudy, paper_study

__all__ = [
    "FIGURES",
    "STUDIES",
    "PaperFigure",
    "PaperStudy",
    "paper_study",
    "study_recipes",
    "write_reproduction",
]
