"""The files of a label store: records of a teacher's predictions, made and written.

A store is a folder with manifest.json, clean.safetensors and safetensors files for each epoch. An epoch's files have a
record for each training image, in the dataset's order:

  classes      uint16 [N,K]   the teacher's K most probable classes in descending order
  logits       float16 or float32 [N,K]   their log-probabilities at temperature 1
  label        as logits [N]  the log-probability of the image's label
  log_sum_exp  float32 [N,T]  of all classes' log-probabilities divided by each of the manifest's temperatures
  spread       float32 [N]    only for standardized logits: the standard deviation of the logits over all classes, by
                              which the log-probabilities in log_sum_exp are divided, too

Log-probabilities are close to 0 for the probable classes, where float16 is most exact. The record of an image that
could not be read is NaN. clean.safetensors has `label`, float32 [N], for the unaugmented images.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdaug.errors import InputError
from kdaug.storage import atomic_write
from kdaug.supervision.manifest import RUN_LABEL_AGAIN, Manifest
from kdaug.supervision.soft_labels import logit_spread, logsumexp_scaled, top_classes, view_temperature

ROWS_PER_FILE = 1 << 17
_UNAUGMENTED_FILE = "clean.safetensors"
_STORE_FILE = re.compile(
    r"(manifest\.json|recipe\.yaml|clean\.safetensors|epoch-\d+-\d+\.safetensors)(\.\d+\.part)?|\.lock"
)


@dataclass(frozen=True)
class LabelFile:
    """The file with the records of images `first` to `end` - 1 in `epoch`, the `index`-th file of that epoch."""

    epoch: int
    index: int
    first: int
    end: int

    def path(self, folder: Path) -> Path:
        return folder / f"epoch-{self.epoch:05}-{self.index}.safetensors"

    def is_written(self, manifest: Manifest, folder: Path) -> bool:
        """Whether the file exists, is complete and belongs to this store. Reads the header, not the records."""
        return _is_valid(self.path(folder), manifest, manifest.columns(self.end - self.first))


def epoch_files(manifest: Manifest, epochs: Iterable[int]) -> list[LabelFile]:
    """All files of these epochs, in order."""
    samples = manifest.dataset.samples
    return [
        LabelFile(epoch, index, first, min(first + ROWS_PER_FILE, samples))
        for epoch in epochs
        for index, first in enumerate(range(0, samples, ROWS_PER_FILE))
    ]


def complete_epochs(manifest: Manifest, folder: Path) -> list[int]:
    """The epochs whose files are all written, ascending."""
    epochs = {int(path.name.split("-")[1]) for path in folder.glob("epoch-[0-9]*-*.safetensors")}
    return [
        epoch
        for epoch in sorted(epochs)
        if all(part.is_written(manifest, folder) for part in epoch_files(manifest, [epoch]))
    ]


def is_unknown_file(path: Path) -> bool:
    """Whether a file in the folder of a store is not one that a store can have."""
    return _STORE_FILE.fullmatch(path.name) is None


def make_records(logits: Tensor, labels: Tensor, manifest: Manifest) -> dict[str, Tensor]:
    """Records for a teacher's `logits` [N,C] and the labels int64 [N], in main memory; classes as int32."""
    log_probs = logits.float().log_softmax(1)
    top = top_classes(log_probs, manifest.k)
    spread = logit_spread(log_probs) if manifest.standardized else None
    divisors = [view_temperature(temperature, spread) for temperature in manifest.temperatures]
    sums = [logsumexp_scaled(log_probs / divisor, divisor) for divisor in divisors]
    records = {
        "classes": top.to(torch.int32),  # few operations support uint16
        "logits": log_probs.gather(1, top).to(manifest.dtype),
        "label": log_probs.gather(1, labels[:, None].clamp(min=0))[:, 0].to(manifest.dtype),
        "log_sum_exp": torch.stack(sums, 1) if sums else log_probs.new_empty(len(log_probs), 0),
    }
    if spread is not None:
        records["spread"] = spread
    return {name: value.cpu() for name, value in records.items()}


def empty_records(rows: int, manifest: Manifest) -> dict[str, Tensor]:
    """Records of `rows` images that could not be read."""
    records = {
        "classes": torch.zeros(rows, manifest.k, dtype=torch.int32),
        "logits": torch.full((rows, manifest.k), math.nan, dtype=manifest.dtype),
        "label": torch.full((rows,), math.nan, dtype=manifest.dtype),
        "log_sum_exp": torch.full((rows, len(manifest.temperatures)), math.nan),
    }
    return {**records, "spread": torch.full((rows,), math.nan)} if manifest.standardized else records


def write_records(records: dict[str, Tensor], part: LabelFile, manifest: Manifest, folder: Path) -> None:
    """Writes the file of `part` atomically."""
    classes = torch.from_numpy(records["classes"].numpy().astype(np.uint16))
    content = safetensors.torch.save({**records, "classes": classes}, _metadata(manifest))
    atomic_write(part.path(folder), content)


def map_records(part: LabelFile, manifest: Manifest, folder: Path) -> dict[str, NDArray[Any]]:
    """The columns of the file of `part`, mapped into memory.

    Raises InputError if it is missing, damaged or belongs to another store.
    """
    path = part.path(folder)
    if not part.is_written(manifest, folder):
        raise InputError(f"{path} is missing, damaged or belongs to another store", RUN_LABEL_AGAIN)
    with safetensors.safe_open(str(path), "pt") as file:  # "pt" maps the file into memory, "np" would read it
        columns = {name: file.get_tensor(name).numpy() for name in manifest.columns(0)}
    if columns["classes"].max() >= len(manifest.dataset.classes):
        raise InputError(f"{path} is damaged", "delete it and run the same kdaug label command again")
    return columns


def take_rows(parts: list[dict[str, NDArray[Any]]], name: str, indices: NDArray[np.int64]) -> NDArray[Any]:
    """Column `name` for images `indices`, from the columns of all files of an epoch.

    In NumPy, which takes half as long as torch for small batches.
    """
    if len(parts) == 1:
        return parts[0][name][indices]
    part, row = np.divmod(indices, ROWS_PER_FILE)
    column = np.empty((len(indices), *parts[0][name].shape[1:]), parts[0][name].dtype)
    for i in np.unique(part):
        column[part == i] = parts[i][name][row[part == i]]
    return column


def write_unaugmented_label_log_probs(log_probs: Tensor, manifest: Manifest, folder: Path) -> None:
    """Writes the log-probability of the label of every unaugmented training image, float32 [N]."""
    atomic_write(folder / _UNAUGMENTED_FILE, safetensors.torch.save({"label": log_probs}, _metadata(manifest)))


def has_unaugmented_label_log_probs(manifest: Manifest, folder: Path) -> bool:
    """Whether the file of `write_unaugmented_label_log_probs` exists, is complete and belongs to this store."""
    return _is_valid(folder / _UNAUGMENTED_FILE, manifest, {"label": ("F32", [manifest.dataset.samples])})


def read_unaugmented_label_log_probs(manifest: Manifest, folder: Path) -> Tensor:
    """Log-probability of the label of every unaugmented training image, float32 [N].

    Raises InputError if the file is missing or damaged.
    """
    if not has_unaugmented_label_log_probs(manifest, folder):
        raise InputError(f"{folder / _UNAUGMENTED_FILE} is missing or damaged", RUN_LABEL_AGAIN)
    return safetensors.torch.load_file(folder / _UNAUGMENTED_FILE)["label"]


def _metadata(manifest: Manifest) -> dict[str, str]:
    return {"store": manifest.digest}


def _is_valid(path: Path, manifest: Manifest, columns: dict[str, tuple[str, list[int]]]) -> bool:
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            header = {name: (part.get_dtype(), list(part.get_shape())) for name, part in slices.items()}
            return header == columns and file.metadata() == _metadata(manifest)
    except (OSError, safetensors.SafetensorError):
        return False
