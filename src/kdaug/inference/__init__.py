"""Using finished runs: evaluate them, load them as classifiers, predict the classes of images."""

from kdaug.inference.evaluate import Evaluation, evaluate_run, evaluation_of_published, evaluation_of_run
from kdaug.inference.finished_run import LoadedRun, load_run
from kdaug.inference.model import Classifier, TopClasses
from kdaug.inference.sources import load

__all__ = [
    "Classifier",
    "Evaluation",
    "LoadedRun",
    "TopClasses",
    "evaluate_run",
    "evaluation_of_published",
    "evaluation_of_run",
    "load",
    "load_run",
]
