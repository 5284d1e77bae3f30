"""What augmentation does to a teacher's predictions: measures, likely label errors, a page; views for the demo."""

from kdaug.inspection.design import InspectionRequest
from kdaug.inspection.gallery import ViewPrediction, predict_views
from kdaug.inspection.run import Inspection, inspect_recipe

__all__ = ["Inspection", "InspectionRequest", "ViewPrediction", "inspect_recipe", "predict_views"]
