"""From a recipe to a finished run directory: the loop, optimisation, checkpoints, metrics, evaluation."""

from kdaug.training.interruption import Interrupted
from kdaug.training.loop import Outcome, train
from kdaug.training.run_directory import RunDirectory, read_metrics

__all__ = ["Interrupted", "Outcome", "RunDirectory", "read_metrics", "train"]
