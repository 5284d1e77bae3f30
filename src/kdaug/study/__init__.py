"""Runs set side by side: curves from their metrics."""

from kdaug.study.curves import curves_svg

__all__ = ["curves_svg"]
