"""The demonstration: three short trainings on the bundled images and one page about them."""

from kdaug.demo.run import Demonstration, run_demo

__all__ = ["Demonstration", "run_demo"]
