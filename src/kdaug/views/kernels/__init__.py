"""The engine behind `apply`: numba kernels that give Pillow's bytes. Loaded when a plan is first carried out."""

from kdaug.views.kernels.execute import execute

__all__ = ["execute"]
