"""Training: from a recipe to a finished run directory. `loop.py` has the training loop."""

from kdaug.training.interrupt import Interrupted
from kdaug.training.loop import TrainResult, train

__all__ = ["Interrupted", "TrainResult", "train"]
