"""What augmentation does to a teacher's prediction."""

from kdaug.inspection.gallery import ViewPrediction, predict_views

__all__ = ["ViewPrediction", "predict_views"]
