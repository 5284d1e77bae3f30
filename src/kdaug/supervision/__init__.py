"""What the student is told: the top-K divergence and the losses built on it, and the teacher."""

from kdaug.supervision.losses import Told, supervise, topk_divergence
from kdaug.supervision.teacher import Teacher, check_source, check_teacher, load_teacher

__all__ = ["Teacher", "Told", "check_source", "check_teacher", "load_teacher", "supervise", "topk_divergence"]
