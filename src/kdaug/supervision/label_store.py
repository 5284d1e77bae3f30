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
from kdaug.supervision.soft_labels import (
    SoftLabels,
    logit_spread,
    logsumexp_scaled,
    required_classes,
    requires_logsumexp,
    view_temperature,
)


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
        all_classes = len(self.manifest.dataset.classes)
        k, label_log_prob = required_classes(settings, all_classes), self._label_log_prob(epoch, indices)
        spread = self._spread(epoch, indices) if settings.standardize_logits else None
        temperature = view_temperature(settings.temperature, spread)
        unaugmented = self.unaugmented_label_log_probs[torch.from_numpy(indices)] if settings.label_trust else None
        classes = torch.from_numpy(self._column("classes", epoch, indices)[:, :k].astype(np.int64))
        if k == all_classes:
            in_order = self._all_log_probs(epoch, indices) / temperature
            others = torch.full((len(indices),), -math.inf)
            total = logsumexp_scaled(in_order, temperature)
            return SoftLabels(classes[:, 0], None, in_order, others, total, label_log_prob, spread, unaugmented)
        scaled = torch.from_numpy(self._column("logits", epoch, indices)[:, :k].astype(np.float32)) / temperature
        if requires_logsumexp(settings):
            total = self._logsumexp_all(settings, epoch, indices, temperature)
            others = total + torch.log1p(-(scaled.logsumexp(1) - total).exp().clamp(max=1))
        else:
            others = total = torch.zeros_like(label_log_prob)
        return SoftLabels(classes[:, 0], classes, scaled, others, total, label_log_prob, spread, unaugmented)

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

    def _spread(self, epoch: int, indices: NDArray[np.int64]) -> Tensor:
        if self.manifest.standardized:
            return torch.from_numpy(self._column("spread", epoch, indices))
        return logit_spread(self._all_log_probs(epoch, indices))

    def _logsumexp_all(
        self,
        settings: config.Supervision,
        epoch: int,
        indices: NDArray[np.int64],
        temperature: Tensor | float,
    ) -> Tensor:
        if settings.temperature == 1 and not settings.standardize_logits:
            return torch.zeros(len(indices))
        if settings.temperature in _stored_temperatures(self.manifest, settings):
            column = self.manifest.temperatures.index(settings.temperature)
            return torch.from_numpy(self._column("log_sum_exp", epoch, indices)[:, column].copy())
        return (self._all_log_probs(epoch, indices) / temperature).logsumexp(1)

    def _all_log_probs(self, epoch: int, indices: NDArray[np.int64]) -> Tensor:
        """Of a store that has all classes, in the dataset's order, float32 [N,C]."""
        classes = torch.from_numpy(self._column("classes", epoch, indices).astype(np.int64))
        log_probs = torch.from_numpy(self._column("logits", epoch, indices).astype(np.float32))
        return torch.empty_like(log_probs).scatter_(1, classes, log_probs)

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
        required = f"supervision.k is {settings.k or 'None: all classes'}"
        if settings.divergence != "top-k":
            count = f"all {classes}" if needed == classes else str(needed)
            required = f"supervision.divergence {settings.divergence} needs {count}"
        raise InputError(
            f"label store {folder} holds the top {manifest.k} classes, but {required}",
            "use no more classes, or run kdaug label again with more classes and another output folder",
        )
    if manifest.k == classes:
        return
    if settings.standardize_logits and not manifest.standardized:
        raise InputError(
            f"label store {folder} has labels of logits that are not standardized, but supervision.standardize_logits "
            "is set",
            "run kdaug label again with this setting and another output folder",
        )
    temperatures = _stored_temperatures(manifest, settings)
    if not settings.standardize_logits:
        temperatures = (1.0, *temperatures)  # at 1 the log-sum-exp is 0
    if requires_logsumexp(settings) and settings.temperature not in temperatures:
        stored = ", ".join(f"{t:g}" for t in temperatures)
        raise InputError(
            f"label store {folder} supports temperatures {stored}, but supervision.temperature is "
            f"{settings.temperature:g}",
            "use one of them, or run kdaug label again with this temperature and another output folder",
        )


def _stored_temperatures(manifest: Manifest, settings: config.Supervision) -> tuple[float, ...]:
    """The temperatures of the stored log-sum-exps, if they are for `settings`."""
    return manifest.temperatures if manifest.standardized == settings.standardize_logits else ()


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
