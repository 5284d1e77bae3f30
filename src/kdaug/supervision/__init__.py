"""What the student is told: the top-K divergence and the losses built on it, and the teacher."""

from kdaug.supervision.label_store import LabelStore, open_store
from kdaug.supervision.losses import Answer, Told, answer_of, supervise, topk_divergence
from kdaug.supervision.teacher import Teacher, check_source, check_teacher, load_teacher

__all__ = [
    "Answer",
    "LabelStore",
    "Teacher",
    "Told",
    "answer_of",
    "check_source",
    "check_teacher",
    "load_teacher",
    "open_store",
    "supervise",
    "topk_divergence",
]
