"""What augmentation does to a teacher's predictions: measures, likely label errors, a page, a recommended magnitude."""

from kdaug.inspection.design import InspectionRequest
from kdaug.inspection.evidence import Evidence, EvidenceRequest
from kdaug.inspection.gallery import ViewPrediction, predict_views
from kdaug.inspection.recommendation import Recommendation, recommend
from kdaug.inspection.run import Inspection, inspect_recipe

__all__ = [
    "Evidence",
    "EvidenceRequest",
    "Inspection",
    "InspectionRequest",
    "Recommendation",
    "ViewPrediction",
    "inspect_recipe",
    "predict_views",
    "recommend",
]
