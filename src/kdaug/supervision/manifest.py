"""The manifest of a label store: which dataset, views and teacher the stored predictions belong to."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from kdaug.data.images import digest
from kdaug.errors import InputError
from kdaug.storage import atomic_write

StorePrecision = Literal["float16", "float32"]
MAX_CLASSES = 1 << 16
RUN_LABEL_AGAIN = "run the same kdaug label command again to restore it"
_VERSION = 3
_FILE_NAME = "manifest.json"
_DTYPES = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class DatasetFingerprint:
    """Identifies training images and their views.

    samples: number of images. classes: class names. data: digest of the images and labels. views: all settings that the
    views depend on, by dotted name.
    """

    samples: int
    classes: tuple[str, ...]
    data: str
    views: dict[str, Any]


@dataclass(frozen=True)
class Manifest:
    """Describes a label store.

    dataset: the images and views. teacher: digest of the teacher. k: stored classes per view. temperatures: of the
    stored log-sum-exps, ascending. precision: of the stored log-probabilities. computed: precision of the teacher's
    forward pass. cycle: number of epochs that repeat cyclically; None: each epoch is used once, and more can be added.
    standardized: whether the log-sum-exps are of standardized logits (supervision.standardize_logits).
    """

    dataset: DatasetFingerprint
    teacher: str
    k: int
    temperatures: tuple[float, ...]
    precision: StorePrecision
    computed: str = "float32"
    cycle: int | None = None
    standardized: bool = False
    version: int = _VERSION

    @property
    def bytes_per_view(self) -> int:
        """Size of one record."""
        return bytes_per_view(self.k, len(self.temperatures), self.precision, self.standardized)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the stored log-probabilities."""
        return _DTYPES[self.precision]

    @property
    def digest(self) -> str:
        """Written into every file of the store, to tell them from files of other stores."""
        return digest(json.dumps(self.to_json(), sort_keys=True).encode())

    def to_json(self) -> dict[str, Any]:
        """Content of manifest.json."""
        fields = asdict(self)
        if not self.standardized:  # stores written before this setting existed keep their digest
            del fields["standardized"]
        return {"subject": fields.pop("dataset"), **fields}

    def columns(self, rows: int) -> dict[str, tuple[str, list[int]]]:
        """Safetensors type and shape of each column in a file of `rows` records."""
        dtype = {"float16": "F16", "float32": "F32"}[self.precision]
        columns = {
            "classes": ("U16", [rows, self.k]),
            "logits": (dtype, [rows, self.k]),
            "label": (dtype, [rows]),
            "log_sum_exp": ("F32", [rows, len(self.temperatures)]),
        }
        return {**columns, "spread": ("F32", [rows])} if self.standardized else columns


def bytes_per_view(k: int, temperatures: int, precision: StorePrecision, standardized: bool = False) -> int:
    """Size of a record with the top k classes and log-sum-exps at this number of temperatures."""
    width = 2 if precision == "float16" else 4
    return (2 + width) * k + width + 4 * temperatures + 4 * standardized


def manifest_differences(before: Manifest | DatasetFingerprint, after: Manifest | DatasetFingerprint) -> list[str]:
    """The fields that differ, each as "name: before -> after"."""
    old, new = _flatten(asdict(before)), _flatten(asdict(after))
    return [f"{name}: {old.get(name)} -> {new.get(name)}" for name in {**old, **new} if old.get(name) != new.get(name)]


def _flatten(content: dict[str, Any]) -> dict[str, Any]:
    """`content` with nested dicts merged into it, and with a count and digest in place of the classes."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            flat |= _flatten(value)
        elif name == "classes":
            flat[name] = f"{len(value)} ({digest('|'.join(value).encode())})"
        else:
            flat[name] = value
    return flat


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Writes manifest.json and creates the folder if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / _FILE_NAME, json.dumps(manifest.to_json(), indent=1) + "\n")


class ManifestError(InputError):
    """The folder has no manifest, or the manifest is damaged."""


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the store in `folder`.

    Raises ManifestError if it is missing or damaged, InputError for a store of another version.
    """
    path = folder / _FILE_NAME
    try:
        content = json.loads(path.read_bytes())
        if content["version"] != _VERSION:
            raise InputError(
                f"{path} is of version {content['version']}, but this kdaug reads version {_VERSION}",
                "run kdaug label again with another output folder",
            )
        subject, temperatures = content.pop("subject"), tuple(map(float, content.pop("temperatures")))
        dataset = DatasetFingerprint(
            int(subject["samples"]), tuple(subject["classes"]), str(subject["data"]), subject["views"]
        )
        manifest = Manifest(dataset=dataset, temperatures=temperatures, **content)
    except OSError:
        raise ManifestError(
            f"{folder} is not a label store: it has no {_FILE_NAME}", "run kdaug label to create one"
        ) from None
    except (ValueError, TypeError, KeyError):
        raise ManifestError(f"{path} is damaged", RUN_LABEL_AGAIN) from None
    integers = {type(manifest.k), type(manifest.cycle or 1)} == {int}
    if not (integers and 1 <= manifest.k <= len(dataset.classes) and manifest.precision in _DTYPES):
        raise ManifestError(f"{path} is damaged", RUN_LABEL_AGAIN)
    return manifest
