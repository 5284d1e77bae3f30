"""Numba kernels for all ops, equal to Pillow byte for byte. Imported when `apply` is first called."""

from kdaug.views.kernels.dispatch import execute

__all__ = ["execute"]
