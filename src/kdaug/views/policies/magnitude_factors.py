"""Magnitude factors: one for each training image, by which RandAugment's magnitude is multiplied. Stored in a file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdaug.errors import InputError, one_line
from kdaug.storage import atomic_write

_KEY = "kdaug"
_HINT = "write the file with kdaug recommend RECIPE --per-image FILE"


@dataclass(frozen=True)
class MagnitudeFactors:
    """values: float64 [N] of at least 0, by row of the training images. images: identifies these images."""

    values: NDArray[np.float64]
    images: str


def factors_from_entropy(entropy: NDArray[np.floating], classes: int) -> NDArray[np.float64]:
    """1 - entropy / ln(classes), float64 [N] in 0..1, for the entropy in nats [N] of a teacher's predictions.

    An image of which the teacher is sure gets the whole magnitude, one that it cannot tell none (after EntAugment, Yang
    et al., ECCV 2024, which uses the student's predictions, again in every epoch). NaN becomes 1.
    """
    factors: NDArray[np.float64] = (1 - np.asarray(entropy, np.float64) / np.log(classes)).clip(0, 1)
    return np.nan_to_num(factors, nan=1.0)


def write_factors(factors: MagnitudeFactors, path: Path) -> None:
    """Writes a safetensors file, atomically."""
    from safetensors.numpy import save  # slow to import, and `kdaug views` needs none of it

    metadata = {_KEY: json.dumps({"images": factors.images})}
    atomic_write(path, save({"factor": factors.values}, metadata))


def read_factors(source: str) -> MagnitudeFactors:
    """Reads "FILE", or "FILE#DIGEST". Raises InputError if it is damaged, of another kind, or has another digest."""
    import safetensors

    path, _, digest = source.partition("#")
    if digest and _digest(path) != digest:
        raise InputError(
            f"magnitude factors {path} have changed: the digest is #{_digest(path)}, not #{digest}", "restore the file"
        )
    try:
        with safetensors.safe_open(path, "np") as file:
            values = file.get_tensor("factor")
            images = json.loads((file.metadata() or {})[_KEY])["images"]
    except (OSError, safetensors.SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"magnitude factors {path} cannot be read: {one_line(error)}", _HINT) from None
    if values.dtype != np.float64 or values.ndim != 1 or not ((values >= 0) & np.isfinite(values)).all():
        raise InputError(f"magnitude factors {path} are not numbers of at least 0, one for each image", _HINT)
    return MagnitudeFactors(values, str(images))


def pin_factors(source: str) -> str:
    """`source` with a digest of the file: FILE#0123456789. Unchanged if it has one."""
    return source if "#" in source else f"{source}#{_digest(source)}"


def _digest(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:10]
    except OSError as error:
        raise InputError(f"magnitude factors {path} cannot be read: {error.strerror}", _HINT) from None
