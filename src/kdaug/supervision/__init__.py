"""What the student is told: label and divergence, weighed for each view; and who says it: a teacher, or its labels."""

from kdaug.supervision.adaptive import divergence_weight
from kdaug.supervision.answer import Answer, answer_of
from kdaug.supervision.divergences import topk_divergence
from kdaug.supervision.label_store import LabelStore, open_store
from kdaug.supervision.losses import Mixture, Told, supervise
from kdaug.supervision.teacher import Teacher, load_teacher

__all__ = [
    "Answer",
    "LabelStore",
    "Mixture",
    "Teacher",
    "Told",
    "answer_of",
    "divergence_weight",
    "load_teacher",
    "open_store",
    "supervise",
    "topk_divergence",
]
