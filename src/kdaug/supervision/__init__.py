"""What the student is told: label and divergence, weighed for each view; and who says it: a teacher, or its labels."""

from kdaug.supervision.adaptive import divergence_weight
from kdaug.supervision.divergences import topk_divergence
from kdaug.supervision.label_store import LabelStore, open_label_store
from kdaug.supervision.losses import LossOutput, MixedLabels, distillation_loss
from kdaug.supervision.soft_labels import SoftLabels, soft_labels_from_logits
from kdaug.supervision.teacher import Teacher, load_teacher

__all__ = [
    "SoftLabels",
    "LabelStore",
    "MixedLabels",
    "Teacher",
    "LossOutput",
    "soft_labels_from_logits",
    "divergence_weight",
    "load_teacher",
    "open_label_store",
    "distillation_loss",
    "topk_divergence",
]
