"""Using finished runs: load their networks, evaluate them on images."""

from kdaug.inference.evaluate import evaluate_run

__all__ = ["evaluate_run"]
