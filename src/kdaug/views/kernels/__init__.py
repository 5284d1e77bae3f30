"""The engine behind `apply`: numba kernels that give Pillow's bytes. Loaded when a plan is first carried out."""

from kdaug.views.kernels.carry_out import carry_out

__all__ = ["carry_out"]
