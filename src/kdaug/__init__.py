"""Train image classifiers with strong augmentation and a teacher that sees the same augmented images.

`import kdaug` is fast: the subpackages are imported when their names are first used. kdaug's networks are added to
timm's registry when timm is imported, before or after kdaug.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kdaug import _timm_registration
from kdaug.errors import InputError

if TYPE_CHECKING:
    from kdaug.config import Recipe, read_recipe
    from kdaug.inference import Classifier, load
    from kdaug.supervision import topk_divergence
    from kdaug.training import train
    from kdaug.views import Policy, ViewDataset, ViewPlan, ViewTransform, apply, create_policy, plan_of

_NAMES_BY_PACKAGE = {
    "kdaug.config": ("Recipe", "read_recipe"),
    "kdaug.inference": ("Classifier", "load"),
    "kdaug.supervision": ("topk_divergence",),
    "kdaug.training": ("train",),
    "kdaug.views": ("Policy", "ViewDataset", "ViewPlan", "ViewTransform", "apply", "create_policy", "plan_of"),
}
_PACKAGE_OF = {name: package for package, names in _NAMES_BY_PACKAGE.items() for name in names}

__all__ = [
    "Classifier",
    "InputError",
    "Policy",
    "Recipe",
    "ViewDataset",
    "ViewPlan",
    "ViewTransform",
    "__version__",
    "apply",
    "create_policy",
    "load",
    "plan_of",
    "read_recipe",
    "topk_divergence",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("kdaug")
    if name in _PACKAGE_OF:
        return getattr(importlib.import_module(_PACKAGE_OF[name]), name)
    raise AttributeError(f"module 'kdaug' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


_timm_registration.install()
