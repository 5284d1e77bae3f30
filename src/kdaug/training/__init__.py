"""From a recipe to a finished run directory: the loop, optimisation, checkpoints, metrics, evaluation."""

from kdaug.runs import RunDirectory, read_metrics
from kdaug.training.interrupt import Interrupted
from kdaug.training.loop import TrainResult, train

__all__ = ["Interrupted", "TrainResult", "RunDirectory", "read_metrics", "train"]
