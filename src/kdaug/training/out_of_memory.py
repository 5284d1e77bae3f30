"""One line for out of memory, on a GPU or in main memory: what took place, and the setting to lower."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kdaug.errors import InputError

_FAILED = re.compile(r"can't allocate memory|out of memory|_ALLOC_FAILED", re.IGNORECASE)
_SIZE = re.compile(r"allocate (\d[\d.]*) ?([KMGTP]i?B|bytes)")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error`, of torch or NumPy, says that memory of a device or main memory could not be allocated."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _FAILED.search(str(error)) is not None


@contextmanager
def explain_out_of_memory(activity: str, images: int, device: torch.device, device_batch: int) -> Iterator[None]:
    """Turns out of memory within the context into an InputError of one line.

    activity: what takes place ("training"), on `images` images at once. device_batch: the value of run.device_batch to
    try next; 0 if it is already 1.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        lower = f"set run.device_batch to {device_batch}" if device_batch else "use another student.name"
        raise InputError(
            describe_out_of_memory(error, activity, images, device),
            f"{lower}, or set run.grad_checkpointing or a smaller data.image_size"
            if activity == "training"
            else f"{lower}, or use smaller images",
        ) from None


def describe_out_of_memory(error: BaseException, activity: str, images: int, device: torch.device) -> str:
    """Which memory is too small for what, in one line. See `explain_out_of_memory` for activity and images."""
    in_gpu = device.type != "cpu" and not isinstance(error, MemoryError) and "can't allocate" not in str(error)
    memory = f"the memory of the GPU ({device})" if in_gpu else "the main memory"
    return f"{memory} is too small for {activity} with {images} images at once{_size(error)}"


def smaller_batch(share: int, at_once: int) -> int:
    """The largest divisor of `share` of at most half of `at_once` images; 0 if `at_once` is 1."""
    return next((count for count in range(at_once // 2, 0, -1) if share % count == 0), 0)


def _size(error: BaseException) -> str:
    """What could not be allocated, in parentheses, if the message says it."""
    found = _SIZE.search(str(error))
    if found is None:
        return ""
    size, unit = found.groups()
    return f" ({int(size) / 2**30:.1f} GiB more)" if unit == "bytes" else f" ({size} {unit} more)"
