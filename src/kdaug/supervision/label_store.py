"""The label store: what a teacher says of every view of a run, on disk, so that students learn without the teacher.

A folder holds manifest.json, which says what the answers are to, and for every epoch safetensors files with a record
per training image, in the order of the set:

  classes      uint16 [N,K]   the teacher's K most probable classes, best first
  logits       float16 or float32 [N,K]   theirs, shifted to log-probabilities at temperature 1: exact where it matters
  label        as logits [N]  that of the image's own class
  log_sum_exp  float32 [N,T]  of all classes' logits, shifted alike and divided by each of the manifest's temperatures

A record of an image that could not be read is all NaN. Besides, clean.safetensors holds `label`, float32 [N], for the
images as they are, without augmentation.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdaug import config
from kdaug.data.images import digest
from kdaug.errors import InputError
from kdaug.storage.atomic import atomic_write
from kdaug.supervision.soft_labels import SoftLabels, logsumexp_all, required_classes, top_classes

StorePrecision = Literal["float16", "float32"]
ROWS_PER_FILE = 1 << 17
MAX_CLASSES = 1 << 16
_VERSION = 3
_CLEAN = "clean.safetensors"
_OURS = re.compile(r"(manifest\.json|recipe\.yaml|clean\.safetensors|epoch-\d+-\d+\.safetensors)(\.\d+\.part)?|\.lock")
_COLUMNS = ("classes", "logits", "label", "log_sum_exp")
_MADE_ANEW = "kdaug label, given the same again, makes it anew"
_DTYPES = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class DatasetFingerprint:
    """What was looked at: `samples` images of `classes`, `data` being a digest of them, in views made by `views`, every
    setting that they depend on, by its dotted name."""

    samples: int
    classes: tuple[str, ...]
    data: str
    views: dict[str, Any]


@dataclass(frozen=True)
class Manifest:
    """What a store is: answers of `teacher` (a digest of it) to `subject`.

    k: classes in a record. temperatures: those of log_sum_exp, ascending. precision: of the stored log-probabilities;
    computed: of the teacher's arithmetic. cycle: how many epochs are used in turn, over and over; None: each once, and
    more may be added.
    """

    subject: DatasetFingerprint
    teacher: str
    k: int
    temperatures: tuple[float, ...]
    precision: StorePrecision
    computed: str = "float32"
    cycle: int | None = None
    version: int = _VERSION

    @property
    def bytes_per_view(self) -> int:
        """Of a record."""
        return bytes_per_view(self.k, len(self.temperatures), self.precision)

    @property
    def digest(self) -> str:
        """By which files know that they belong to this store."""
        return digest(json.dumps(asdict(self), sort_keys=True).encode())

    def columns(self, rows: int) -> dict[str, tuple[str, list[int]]]:
        """What a file of `rows` records holds: safetensors' type and shape of each column."""
        kind = {"float16": "F16", "float32": "F32"}[self.precision]
        return {
            "classes": ("U16", [rows, self.k]),
            "logits": (kind, [rows, self.k]),
            "label": (kind, [rows]),
            "log_sum_exp": ("F32", [rows, len(self.temperatures)]),
        }


def bytes_per_view(k: int, temperatures: int, precision: StorePrecision) -> int:
    """Of a record of the top k classes with so many log-sum-exps."""
    width = 2 if precision == "float16" else 4
    return (2 + width) * k + width + 4 * temperatures


def manifest_differences(before: Manifest | DatasetFingerprint, after: Manifest | DatasetFingerprint) -> list[str]:
    """What differs, as "name: before -> after"."""
    old, new = _flat(asdict(before)), _flat(asdict(after))
    return [f"{name}: {old.get(name)} -> {new.get(name)}" for name in {**old, **new} if old.get(name) != new.get(name)]


def _flat(content: dict[str, Any]) -> dict[str, Any]:
    """The same without dicts in it, and with the classes in a few words."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            flat |= _flat(value)
        elif name == "classes":
            flat[name] = f"{len(value)} ({digest('|'.join(value).encode())})"
        else:
            flat[name] = value
    return flat


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Begins a store in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "manifest.json", json.dumps(asdict(manifest), indent=1) + "\n")


class ManifestError(InputError):
    """There is none that can be read: the folder is no label store, or its manifest is damaged."""


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the store in `folder`. Raises NoManifest, or InputError for a store of another version."""
    path = folder / "manifest.json"
    try:
        content = json.loads(path.read_bytes())
        if content["version"] != _VERSION:
            raise InputError(f"{path} is of version {content['version']}, but this kdaug reads {_VERSION}; label again")
        subject, temperatures = content.pop("subject"), tuple(map(float, content.pop("temperatures")))
        subject = DatasetFingerprint(
            int(subject["samples"]), tuple(subject["classes"]), str(subject["data"]), subject["views"]
        )
        manifest = Manifest(subject=subject, temperatures=temperatures, **content)
    except OSError:
        raise ManifestError(
            f"{folder} is not a label store: it holds no manifest.json; kdaug label makes one"
        ) from None
    except (ValueError, TypeError, KeyError):
        raise ManifestError(f"{path} is damaged; {_MADE_ANEW}") from None
    whole_numbers = {type(manifest.k), type(manifest.cycle or 1)} == {int}
    if not (whole_numbers and 1 <= manifest.k <= len(subject.classes) and manifest.precision in _DTYPES):
        raise ManifestError(f"{path} is damaged; {_MADE_ANEW}")
    return manifest


@dataclass(frozen=True)
class EpochFile:
    """Rows `first` .. `end` - 1 of the images in `epoch`: the content of one file."""

    epoch: int
    number: int
    first: int
    end: int

    def path(self, folder: Path) -> Path:
        return folder / f"epoch-{self.epoch:05}-{self.number}.safetensors"

    def is_written(self, manifest: Manifest, folder: Path) -> bool:
        """Whether the file is there, whole, and of this store; its header is read, not its records."""
        return _is_sound(self.path(folder), manifest, manifest.columns(self.end - self.first))


def _is_sound(path: Path, manifest: Manifest, columns: dict[str, tuple[str, list[int]]]) -> bool:
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            found = {name: (part.get_dtype(), list(part.get_shape())) for name, part in slices.items()}
            return found == columns and file.metadata() == _metadata(manifest)
    except (OSError, safetensors.SafetensorError):
        return False


def _metadata(manifest: Manifest) -> dict[str, str]:
    return {"store": manifest.digest}


def epoch_files(manifest: Manifest, epochs: Iterable[int]) -> list[EpochFile]:
    """All files of these epochs, in order."""
    starts = range(0, manifest.subject.samples, ROWS_PER_FILE)
    return [
        EpochFile(epoch, number, first, min(first + ROWS_PER_FILE, manifest.subject.samples))
        for epoch in epochs
        for number, first in enumerate(starts)
    ]


def complete_epochs(manifest: Manifest, folder: Path) -> list[int]:
    """The epochs of which all files are there, ascending."""
    named = {int(path.name.split("-")[1]) for path in folder.glob("epoch-[0-9]*-*.safetensors")}
    return [
        epoch
        for epoch in sorted(named)
        if all(part.is_written(manifest, folder) for part in epoch_files(manifest, [epoch]))
    ]


def is_unknown_file(path: Path) -> bool:
    """Whether a file in a store's folder is none of a store's."""
    return _OURS.fullmatch(path.name) is None


def make_records(logits: Tensor, labels: Tensor, manifest: Manifest) -> dict[str, Tensor]:
    """The records of views whose teacher's `logits` [N,C] and whose `labels` int64 [N] are given; in main memory."""
    shifted = logits.float().log_softmax(1)
    top = top_classes(shifted, manifest.k)
    dtype = _DTYPES[manifest.precision]
    sums = [logsumexp_all(shifted / temperature, temperature) for temperature in manifest.temperatures]
    records = {
        "classes": top.to(torch.int32),  # few operations know uint16
        "logits": shifted.gather(1, top).to(dtype),
        "label": shifted.gather(1, labels[:, None])[:, 0].to(dtype),
        "log_sum_exp": torch.stack(sums, 1) if sums else shifted.new_empty(len(shifted), 0),
    }
    return {name: value.cpu() for name, value in records.items()}


def empty_records(rows: int, manifest: Manifest) -> dict[str, Tensor]:
    """Records of `rows` images that could not be read."""
    dtype = _DTYPES[manifest.precision]
    return {
        "classes": torch.zeros(rows, manifest.k, dtype=torch.int32),
        "logits": torch.full((rows, manifest.k), math.nan, dtype=dtype),
        "label": torch.full((rows,), math.nan, dtype=dtype),
        "log_sum_exp": torch.full((rows, len(manifest.temperatures)), math.nan),
    }


def write_records(records: dict[str, Tensor], part: EpochFile, manifest: Manifest, folder: Path) -> None:
    """Writes a part's file, whole or not at all."""
    classes = torch.from_numpy(records["classes"].numpy().astype(np.uint16))
    content = safetensors.torch.save({**records, "classes": classes}, _metadata(manifest))
    atomic_write(part.path(folder), content)


def write_clean(label: Tensor, manifest: Manifest, folder: Path) -> None:
    """Writes the log-probabilities of all labels, float32 [N], for the images as they are."""
    atomic_write(folder / _CLEAN, safetensors.torch.save({"label": label}, _metadata(manifest)))


def has_clean_labels(manifest: Manifest, folder: Path) -> bool:
    """Whether `write_clean` is done."""
    return _is_sound(folder / _CLEAN, manifest, {"label": ("F32", [manifest.subject.samples])})


@dataclass
class LabelStore:
    """A store opened for reading: files are mapped into memory when an epoch is first asked for, the last one kept."""

    folder: Path
    manifest: Manifest
    _open: tuple[int, list[dict[str, NDArray[Any]]]] = field(default=(-1, []), repr=False)

    @property
    def cycle(self) -> int | None:
        """How many epochs are used in turn; None: each once."""
        return self.manifest.cycle

    @cached_property
    def clean(self) -> Tensor:
        """Log-probabilities of all labels, float32 [N], for the images as they are."""
        if not has_clean_labels(self.manifest, self.folder):
            raise InputError(f"{self.folder / _CLEAN} is missing or damaged; {_MADE_ANEW}")
        return safetensors.torch.load_file(self.folder / _CLEAN)["label"]

    def records(self, epoch: int, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """The records of images `rows` in `epoch`, classes as int64.

        Raises InputError for an epoch or a file that is not there, or an image that could not be read.
        """
        found = {name: torch.from_numpy(self._column(name, epoch, rows)) for name in _COLUMNS}
        return {**found, "classes": found["classes"].long()}

    def _column(self, name: str, epoch: int, rows: NDArray[np.int64]) -> NDArray[Any]:
        """A column of the records, as it is stored. In NumPy, which takes rows of small batches in half the time."""
        parts = self._parts(epoch)
        if len(parts) == 1:
            return parts[0][name][rows]
        number, row = np.divmod(rows, ROWS_PER_FILE)
        column = np.empty((len(rows), *parts[0][name].shape[1:]), parts[0][name].dtype)
        for n in np.unique(number):
            column[number == n] = parts[n][name][row[number == n]]
        return column

    def _label(self, epoch: int, rows: NDArray[np.int64]) -> Tensor:
        """Log-probabilities of the labels, float32 [N]; InputError if there is none, for the image was unreadable."""
        label = self._column("label", epoch, rows).astype(np.float32)
        unread = np.isnan(label)
        if unread.any():
            raise InputError(
                f"label store {self.folder}: image {rows[unread.argmax()]} could not be read when it was labelled in "
                f"epoch {epoch}, now it can; label again into another folder"
            )
        return torch.from_numpy(label)

    def _parts(self, epoch: int) -> list[dict[str, NDArray[Any]]]:
        if self._open[0] != epoch:
            self._open = (
                epoch,
                [_mapped(part, self.manifest, self.folder) for part in epoch_files(self.manifest, [epoch])],
            )
        return self._open[1]

    def answer(self, settings: config.Supervision, epoch: int, rows: NDArray[np.int64]) -> SoftLabels:
        """What the teacher said of the views of images `rows` in `epoch`, for these settings.

        Raises InputError for an epoch or a file that is not there, or an image that could not be read.
        """
        all_classes, temperature = len(self.manifest.subject.classes), settings.temperature
        k, label = required_classes(settings, all_classes), self._label(epoch, rows)
        clean = self.clean[torch.from_numpy(rows)] if settings.label_trust else None
        classes = torch.from_numpy(self._column("classes", epoch, rows)[:, :k].astype(np.int64))
        logits = torch.from_numpy(self._column("logits", epoch, rows)[:, :k].astype(np.float32)) / temperature
        if k == all_classes:
            in_order = torch.empty_like(logits).scatter_(1, classes, logits)
            none = logits.new_full((len(rows),), -math.inf)
            everything = logsumexp_all(in_order, temperature)
            return SoftLabels(classes[:, 0], None, in_order, none, everything, label, clean)
        if settings.reading == "renormalized":
            others = everything = torch.zeros_like(label)  # of no consequence
        else:
            everything = self._log_sum_exp(epoch, rows, temperature)
            others = everything + torch.log1p(-(logits.logsumexp(1) - everything).exp().clamp(max=1))
        return SoftLabels(classes[:, 0], classes, logits, others, everything, label, clean)

    def _log_sum_exp(self, epoch: int, rows: NDArray[np.int64], temperature: float) -> Tensor:
        if temperature == 1:
            return torch.zeros(len(rows))
        column = self.manifest.temperatures.index(temperature)
        return torch.from_numpy(self._column("log_sum_exp", epoch, rows)[:, column].copy())


def _mapped(part: EpochFile, manifest: Manifest, folder: Path) -> dict[str, NDArray[Any]]:
    path = part.path(folder)
    if not part.is_written(manifest, folder):
        raise InputError(f"{path} is missing or damaged, or of another store; {_MADE_ANEW}")
    with safetensors.safe_open(str(path), "pt") as file:  # as torch's the file is mapped, as NumPy's it is read
        columns = {name: file.get_tensor(name).numpy() for name in _COLUMNS}
    if columns["classes"].max() >= len(manifest.subject.classes):
        raise InputError(f"{path} is damaged; delete it, and {_MADE_ANEW}")
    return columns


def open_label_store(
    folder: Path, subject: DatasetFingerprint, settings: config.Supervision, epochs: Iterable[int]
) -> LabelStore:
    """The store in `folder`, if it serves training in `epochs` on `subject` under `settings`.

    Raises InputError naming what differs or is missing.
    """
    there = read_manifest(folder)
    differs = manifest_differences(there.subject, subject)
    if differs:
        raise InputError(
            f"label store {folder} is of other views than these ({'; '.join(differs)}); set them back, or label again"
        )
    _check_supervision(folder, there, settings)
    needed = sorted({epoch if there.cycle is None else epoch % there.cycle for epoch in epochs})
    lacking = next((part for part in epoch_files(there, needed) if not part.is_written(there, folder)), None)
    if lacking is not None:
        state = "damaged or of another store" if lacking.path(folder).exists() else "missing"
        missing = "" if there.cycle is not None else f" with --epochs {lacking.epoch}:{needed[-1] + 1}"
        raise InputError(
            f"label store {folder}: epoch {lacking.epoch} is needed, but {lacking.path(folder).name} is {state}; kdaug "
            f"label, given the same again{missing}, makes it"
        )
    store = LabelStore(folder, there)
    if settings.label_trust:
        store.clean  # noqa: B018 - read now, so that a damaged file is named before training
    return store


def _check_supervision(folder: Path, there: Manifest, settings: config.Supervision) -> None:
    classes = len(there.subject.classes)
    if required_classes(settings, classes) > there.k:
        asked = f"supervision.k is {settings.k}"
        if settings.divergence == "decoupled":
            asked = f"supervision.divergence decoupled needs all {classes}"
        raise InputError(
            f"label store {folder} holds the top {there.k} classes, but {asked}; ask for no more, or label again with "
            "--k"
        )
    needed = settings.divergence == "top-k" and settings.reading != "renormalized" and there.k < classes
    if needed and settings.temperature not in (1.0, *there.temperatures):
        known = ", ".join(f"{t:g}" for t in (1.0, *there.temperatures))
        raise InputError(
            f"label store {folder} knows temperatures {known}, but supervision.temperature is "
            f"{settings.temperature:g}; take one of them, or label again with --temperatures"
        )
