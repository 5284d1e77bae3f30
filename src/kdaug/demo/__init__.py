"""The demonstration: three short trainings on the bundled images, and a page about them."""

from kdaug.demo.result import DemoResult
from kdaug.demo.run import run_demo

__all__ = ["DemoResult", "run_demo"]
