"""Own photos: chooses the settings of a run on a folder of photos, and describes its result at the end."""

from kdaug.photos.plan import Request, plan_recipe
from kdaug.photos.summary import summarize_run

__all__ = ["Request", "plan_recipe", "summarize_run"]
