"""Figures 1 and 3 of the paper, which show views and a teacher's predictions for them: no student is trained."""

from __future__ import annotations

from dataclasses import dataclass

from kdaug.config import Recipe
from kdaug.recipes import RECIPES
from kdaug.recipes.scales import Scale, at_scale


@dataclass(frozen=True)
class PaperFigure:
    """A figure that an inspection reproduces.

    title: for people. section: id of the section of the inspection's page that shows it. all_magnitudes: whether it
    needs views at other magnitudes than the policy's own.
    """

    title: str
    section: str
    all_magnitudes: bool

    def recipe(self, scale: Scale) -> Recipe:
        """The recipe whose views and teacher are inspected.

        "paper": EfficientNet-B0 on ImageNet at M = 9. Else Table 1's policy and teacher at M = 5, where the gain is
        large, as for Figure 4.
        """
        name = "imagenet-efficientnet_b0-kd" if scale == "paper" else "cifar100-table1-m5-kd"
        return at_scale(RECIPES[name].make(), scale)


FIGURES: dict[str, PaperFigure] = {
    "figure1": PaperFigure("Figure 1: views, and the teacher's soft labels for them", "outliers", False),
    "figure3": PaperFigure("Figure 3: what augmentation does to the teacher's predictions", "by-magnitude", True),
}
