"""Compares an exported network with the run it is from, and writes the file only if both agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdaug.errors import InputError, one_line
from kdaug.export.reference import Reference
from kdaug.storage import atomic_write

TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""The largest difference of logits allowed, as a fraction of the largest logit of the run, by type of the logits."""
Predict = Callable[[Tensor], Tensor]
"""From images uint8 [N,H,W,C] to logits [N,classes]."""
Metadata = Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """An exported network against the run, both on the CPU.

    images: how many images; source: which ones; batch_sizes: of the batches that the exported network got. runtime:
    what computed its logits. max_logit_difference: the largest absolute difference of a logit; tolerance: what is
    allowed. same_class: for how many images the class with the highest logit is the same.
    """

    images: int
    source: str
    batch_sizes: tuple[int, ...]
    runtime: str
    max_logit_difference: float
    tolerance: float
    same_class: int


def compare(reference: Reference, predict: Predict, runtime: str) -> Comparison:
    """Compares the logits of `predict` with those of the run. Raises InputError unless they agree.

    They agree if no logit differs by more than the tolerance. Then the class can only differ for an image whose two
    highest logits differ by at most twice the tolerance.
    """
    differences, sizes, wrong, allowed = list[Tensor](), list[int](), set[int](), 0.0
    for rows in reference.batches():
        logits, expected = _predict(predict, reference.images[rows]), reference.logits[rows]
        if logits.shape != expected.shape or logits.dtype not in TOLERANCE:
            got = f"{list(logits.shape)} of {logits.dtype}"
            raise _refusal(f"for {len(rows)} images it returns {got}, not {list(expected.shape)} of {expected.dtype}")
        differences.append((logits.double() - expected.double()).abs().max())
        wrong.update(rows[logits.argmax(1) != expected.argmax(1)].tolist())
        sizes.append(len(rows))
        allowed = TOLERANCE[logits.dtype]
    largest, tolerance = torch.stack(differences).max().item(), allowed * reference.logits.abs().max().item()
    count = len(reference.images)
    same = count - len(wrong)
    if not largest <= tolerance:  # nor if it is NaN
        raise _refusal(
            f"the largest difference of logits is {largest:.2g} (allowed: {tolerance:.2g}), and the class is the same "
            f"for {same} of {count} images"
        )
    return Comparison(count, reference.description, tuple(dict.fromkeys(sizes)), runtime, largest, tolerance, same)


def _predict(predict: Predict, images: Tensor) -> Tensor:
    try:
        return predict(images)
    except Exception as error:  # of any type, from the runtime
        raise _refusal(f"it fails on a batch of {len(images)}: {one_line(error)}") from None


def _refusal(reason: str) -> InputError:
    return InputError(f"the exported network does not agree with the run: {reason}; nothing was written")


def write_checked_file(
    path: Path,
    serialize: Callable[[Metadata], bytes],
    load: Callable[[bytes], Predict],
    runtime: str,
    reference: Reference,
    metadata: Metadata,
) -> Comparison:
    """Writes what `serialize` makes, with `metadata` and the figures of the comparison, to `path`, atomically.

    load: reads such a file, from memory. Raises InputError if it does not agree with the run; nothing is written then.
    """
    comparison = compare(reference, load(serialize(metadata)), runtime)
    content = serialize({**metadata, "check": asdict(comparison)})
    compare(reference.first(3), load(content), runtime)  # the file with the figures is another file
    atomic_write(path, content)
    return comparison
