"""The demonstration: three short trainings on the bundled images and one page about them."""

from kdaug.demo.run import DemoResult, run_demo

__all__ = ["DemoResult", "run_demo"]
