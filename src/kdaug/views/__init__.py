"""Images changed: a policy plans (draws, no pixels), `apply` carries the plan out (pixels, no randomness)."""

from kdaug.views.apply import apply
from kdaug.views.plan import ViewPlan, plan_of
from kdaug.views.policies import Policy, create_policy
from kdaug.views.transforms import Keyed, ViewTransform

__all__ = ["Keyed", "Policy", "ViewPlan", "ViewTransform", "apply", "create_policy", "plan_of"]
