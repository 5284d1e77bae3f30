"""What augmentation does to a teacher's judgement: views beside the classes the teacher sees in them."""

from kdaug.inspection.gallery import Look, look_at_views

__all__ = ["Look", "look_at_views"]
