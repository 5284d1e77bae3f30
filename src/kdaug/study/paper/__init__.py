"""The paper's tables and figures: the runs each needs, and our results beside the published ones."""

from kdaug.study.paper.reproduce import write_reproduction
from kdaug.study.paper.studies import STUDIES, paper_study

__all__ = ["STUDIES", "paper_study", "write_reproduction"]
