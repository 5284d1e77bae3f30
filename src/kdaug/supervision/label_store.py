"""The label store: a teacher's predictions for every view of a run, on disk, to train students without the teacher."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdaug import config
from kdaug.errors import InputError
from kdaug.supervision.manifest import DatasetFingerprint, Manifest, manifest_differences, read_manifest
from kdaug.supervision.records import epoch_files, map_records, read_unaugmented_label_log_probs, take_rows
from kdaug.supervision.soft_labels import SoftLabels, logsumexp_scaled, required_classes, requires_logsumexp


@dataclass
class LabelStore:
    """A store opened for reading. The files of the epoch last used are mapped into memory."""

    folder: Path
    manifest: Manifest
    _mapped: tuple[int, list[dict[str, NDArray[Any]]]] = field(default=(-1, []), repr=False)

    @property
    def cycle(self) -> int | None:
        """Number of epochs that repeat cyclically; None: each epoch is used once."""
        return self.manifest.cycle

    @cached_property
    def unaugmented_label_log_probs(self) -> Tensor:
        """Log-probability of the label of every unaugmented training image, float32 [N].

        Raises InputError if the file is missing or damaged.
        """
        return read_unaugmented_label_log_probs(self.manifest, self.folder)

    def records(self, epoch: int, indices: NDArray[np.int64]) -> dict[str, Tensor]:
        """The records of images `indices` in `epoch` by column, classes as int64.

        Raises InputError if the epoch is not stored or a file is damaged.
        """
        columns = {name: torch.from_numpy(self._column(name, epoch, indices)) for name in self.manifest.columns(0)}
        return {**columns, "classes": columns["classes"].long()}

    def soft_labels(self, settings: config.Supervision, epoch: int, indices: NDArray[np.int64]) -> SoftLabels:
        """Soft labels for the views of images `indices` in `epoch`, in main memory.

        Raises InputError if the epoch is not stored, a file is damaged, or an image could not be read when labeled.
        """
        all_classes, temperature = len(self.manifest.dataset.classes), settings.temperature
        k, label_log_prob = required_classes(settings, all_classes), self._label_log_prob(epoch, indices)
        unaugmented = self.unaugmented_label_log_probs[torch.from_numpy(indices)] if settings.label_trust else None
        classes = torch.from_numpy(self._column("classes", epoch, indices)[:, :k].astype(np.int64))
        log_probs = torch.from_numpy(self._column("logits", epoch, indices)[:, :k].astype(np.float32))
        scaled = log_probs / temperature
        if k == all_classes:
            in_order = torch.empty_like(scaled).scatter_(1, classes, scaled)
            others = scaled.new_full((len(indices),), -math.inf)
            total = logsumexp_scaled(in_order, temperature)
            return SoftLabels(classes[:, 0], None, in_order, others, total, label_log_prob, unaugmented)
        if requires_logsumexp(settings):
            total = self._logsumexp_all(epoch, indices, temperature)
            others = total + torch.log1p(-(scaled.logsumexp(1) - total).exp().clamp(max=1))
        else:
            others = total = torch.zeros_like(label_log_prob)
        return SoftLabels(classes[:, 0], classes, scaled, others, total, label_log_prob, unaugmented)

    def _label_log_prob(self, epoch: int, indices: NDArray[np.int64]) -> Tensor:
        label_log_prob = self._column("label", epoch, indices).astype(np.float32)
        is_unread = np.isnan(label_log_prob)
        if is_unread.any():
            raise InputError(
                f"label store {self.folder}: image {indices[is_unread.argmax()]} could not be read when it was "
                f"labeled in epoch {epoch}, but now it can",
                "run kdaug label again with another output folder",
            )
        return torch.from_numpy(label_log_prob)

    def _logsumexp_all(self, epoch: int, indices: NDArray[np.int64], temperature: float) -> Tensor:
        if temperature == 1:
            return torch.zeros(len(indices))
        if temperature in self.manifest.temperatures:
            column = self.manifest.temperatures.index(temperature)
            return torch.from_numpy(self._column("log_sum_exp", epoch, indices)[:, column].copy())
        all_classes = torch.from_numpy(self._column("logits", epoch, indices).astype(np.float32))
        return (all_classes / temperature).logsumexp(1)

    def _column(self, name: str, epoch: int, indices: NDArray[np.int64]) -> NDArray[Any]:
        if self._mapped[0] != epoch:
            parts = epoch_files(self.manifest, [epoch])
            self._mapped = (epoch, [map_records(part, self.manifest, self.folder) for part in parts])
        return take_rows(self._mapped[1], name, indices)


def open_label_store(
    folder: Path, dataset: DatasetFingerprint, settings: config.Supervision, epochs: Iterable[int]
) -> LabelStore:
    """Opens the store in `folder` for training on `dataset` with `settings`; `epochs` are those with a teacher.

    Raises InputError if the store is of another dataset or other views, lacks an epoch, or has too few classes or
    temperatures for `settings`.
    """
    manifest = read_manifest(folder)
    differences = manifest_differences(manifest.dataset, dataset)
    if differences:
        raise InputError(
            f"label store {folder} was created for different views ({'; '.join(differences)})",
            "restore these settings, or run kdaug label again with another output folder",
        )
    _check_settings(folder, manifest, settings)
    _check_epochs(folder, manifest, epochs)
    return LabelStore(folder, manifest)


def _check_settings(folder: Path, manifest: Manifest, settings: config.Supervision) -> None:
    classes = len(manifest.dataset.classes)
    needed = required_classes(settings, classes)
    if needed > manifest.k:
        required = f"supervision.k is {settings.k}"
        if settings.divergence != "top-k":
            count = f"all {classes}" if needed == classes else str(needed)
            required = f"supervision.divergence {settings.divergence} needs {count}"
        raise InputError(
            f"label store {folder} holds the top {manifest.k} classes, but {required}",
            "use no more classes, or run kdaug label again with more classes and another output folder",
        )
    is_partial = requires_logsumexp(settings) and manifest.k < classes
    if is_partial and settings.temperature not in (1.0, *manifest.temperatures):
        stored = ", ".join(f"{t:g}" for t in (1.0, *manifest.temperatures))
        raise InputError(
            f"label store {folder} supports temperatures {stored}, but supervision.temperature is "
            f"{settings.temperature:g}",
            "use one of them, or run kdaug label again with this temperature and another output folder",
        )


def _check_epochs(folder: Path, manifest: Manifest, epochs: Iterable[int]) -> None:
    needed = sorted({epoch if manifest.cycle is None else epoch % manifest.cycle for epoch in epochs})
    missing = next((part for part in epoch_files(manifest, needed) if not part.is_written(manifest, folder)), None)
    if missing is None:
        return
    path = missing.path(folder)
    state = "damaged or belongs to another store" if path.exists() else "missing"
    which = "" if manifest.cycle is not None else f", for epochs {missing.epoch}:{needed[-1] + 1}"
    raise InputError(
        f"label store {folder}: epoch {missing.epoch} is needed, but {path.name} is {state}",
        f"run the same kdaug label command again{which}",
    )
