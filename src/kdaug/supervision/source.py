"""Sources of soft labels: a teacher that computes them or a label store that reads them, behind one interface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdaug import config
from kdaug.supervision.label_store import LabelStore
from kdaug.supervision.soft_labels import SoftLabels, soft_labels_from_logits
from kdaug.supervision.teacher import AnyTeacher


class SoftLabelSource(Protocol):
    """Gives the training step the soft labels of each batch of views."""

    @property
    def view_cycle(self) -> int | None:
        """Number of epochs whose views repeat cyclically; None: every epoch has its own views."""
        ...

    def prepare(self, before_batch: Callable[[], None] = lambda: None) -> None:
        """One-time setup before the first step. Raises InputError if a stored file is damaged.

        before_batch: is called before each forward pass of a teacher; its exceptions end the setup.
        """
        ...

    def soft_labels(self, views: Tensor, labels: Tensor, epoch: int, indices: NDArray[np.int64]) -> SoftLabels:
        """Soft labels for a batch, on the device of `views`.

        views: uint8 [N,H,W,C], the training images `indices` [N] as augmented in `epoch`. labels: int64 [N].
        """
        ...


class TeacherSoftLabels:
    """Soft labels computed by a teacher, under the autocast of the caller.

    unaugmented_label_log_probs: returns the teacher's log-probability of the label of every unaugmented training image,
    float32 [all training images] in main memory. `prepare` calls it with its argument if settings.label_trust is set.
    """

    view_cycle: int | None = None

    def __init__(
        self,
        teacher: AnyTeacher,
        settings: config.Supervision,
        unaugmented_label_log_probs: Callable[[Callable[[], None]], Tensor],
    ) -> None:
        self._teacher, self._settings, self._compute_unaugmented = teacher, settings, unaugmented_label_log_probs
        self._unaugmented: Tensor | None = None

    def prepare(self, before_batch: Callable[[], None] = lambda: None) -> None:
        """Computes the unaugmented images' label log-probabilities if settings.label_trust is set."""
        if self._settings.label_trust:
            self._unaugmented = self._compute_unaugmented(before_batch)

    def soft_labels(self, views: Tensor, labels: Tensor, epoch: int, indices: NDArray[np.int64]) -> SoftLabels:
        """See SoftLabelSource; `epoch` is not used."""
        soft_labels = soft_labels_from_logits(self._teacher(views, indices), self._settings, labels)
        if self._unaugmented is None:
            return soft_labels
        rows = torch.from_numpy(indices % len(self._unaugmented))
        unaugmented = self._unaugmented[rows].to(views.device, non_blocking=True)
        return replace(soft_labels, unaugmented_label_log_prob=unaugmented)


class StoredSoftLabels:
    """Soft labels read from a label store."""

    def __init__(self, store: LabelStore, settings: config.Supervision) -> None:
        self._store, self._settings = store, settings

    @property
    def view_cycle(self) -> int | None:
        """The cycle of the store."""
        return self._store.cycle

    def prepare(self, before_batch: Callable[[], None] = lambda: None) -> None:
        """Reads clean.safetensors if settings.label_trust is set, to find damage before training."""
        if self._settings.label_trust:
            self._store.unaugmented_label_log_probs  # noqa: B018 - cached by the store

    def soft_labels(self, views: Tensor, labels: Tensor, epoch: int, indices: NDArray[np.int64]) -> SoftLabels:
        """See SoftLabelSource; only the device of `views` is used."""
        return self._store.soft_labels(self._settings, epoch, indices).to(views.device)
