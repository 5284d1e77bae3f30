"""What augmentation does to a teacher's judgement: views beside the classes the teacher sees in them."""

from kdaug.inspection.gallery import ViewPrediction, predict_views

__all__ = ["ViewPrediction", "predict_views"]
