"""Training targets and loss: soft labels from a teacher or a label store, divergences, and the loss of each view."""

from kdaug.supervision.adaptive import divergence_weight
from kdaug.supervision.divergences import topk_divergence
from kdaug.supervision.label_store import LabelStore, open_label_store
from kdaug.supervision.losses import LossOutput, MixedLabels, concat_losses, distillation_loss
from kdaug.supervision.soft_labels import SoftLabels, soft_labels_from_logits
from kdaug.supervision.source import SoftLabelSource, StoredSoftLabels, TeacherSoftLabels
from kdaug.supervision.teacher import AnyTeacher, Teacher, TeacherEnsemble, load_teacher

__all__ = [
    "AnyTeacher",
    "LabelStore",
    "LossOutput",
    "MixedLabels",
    "SoftLabelSource",
    "SoftLabels",
    "StoredSoftLabels",
    "Teacher",
    "TeacherEnsemble",
    "TeacherSoftLabels",
    "concat_losses",
    "distillation_loss",
    "divergence_weight",
    "load_teacher",
    "open_label_store",
    "soft_labels_from_logits",
    "topk_divergence",
]
