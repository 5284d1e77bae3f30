"""Augmented views of images: a policy draws a plan (no pixels), `apply` executes the plan (no randomness)."""

from kdaug.views.execution import apply
from kdaug.views.plan import ViewPlan, plan_of
from kdaug.views.policies import Policy, create_policy
from kdaug.views.transforms import ViewDataset, ViewTransform

__all__ = ["Policy", "ViewDataset", "ViewPlan", "ViewTransform", "apply", "create_policy", "plan_of"]
