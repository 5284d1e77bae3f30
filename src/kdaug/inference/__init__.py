"""Using finished runs: load their networks, evaluate them on images."""

from kdaug.inference.evaluate import evaluate_published, evaluate_run
from kdaug.inference.load import LoadedRun, load_run

__all__ = ["LoadedRun", "evaluate_published", "evaluate_run", "load_run"]
