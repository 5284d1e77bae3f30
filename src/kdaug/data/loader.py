"""Loads batches in a deterministic order: from memory, or decoded in worker processes; prefetched in a thread."""

from __future__ import annotations

import errno
import logging
import math
import os
import queue
import shutil
import signal
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data._utils import signal_handling

from kdaug.data.crops import ImageCrop
from kdaug.data.decode import RangeNotes, UnreadableImage, decode, log_range_notes, take_range_notes
from kdaug.data.formats import readable_extensions
from kdaug.data.images import ArrayImages, EncodedImages, Images
from kdaug.data.main_guard import missing_guard_error
from kdaug.data.resize import tall_images_rule
from kdaug.errors import InputError, one_line
from kdaug.rng import permutation

T = TypeVar("T")
_logger = logging.getLogger(__name__)
_NO_IMAGE = -1
_SECONDS_AFTER_SIGTERM = 60
_ALWAYS_ALLOWED = 3
_PREFETCH_FACTOR = 4
"""Parts of batches that each worker decodes ahead."""
_PART_BYTES = 4 << 20
"""Pixels that a worker passes to the main process at once, in shared memory; of which Docker gives 64 MiB."""
_SHARED_MEMORY = "/dev/shm"


@dataclass(frozen=True)
class BatchKey:
    """Which images make up a batch of `epoch`, for optimization step `step`.

    indices: of each image in the dataset, int64 [N]; see `ArrayImages`. Views are drawn for their sample ids
    (`Images.sample_ids`). view_epoch: the epoch that views are drawn for. It differs from `epoch` if views are reused.
    """

    step: int
    epoch: int
    indices: NDArray[np.int64]
    view_epoch: int


@dataclass(frozen=True)
class Batch:
    """`images` uint8 [N,H,W,C] and `labels` int64 [N] of the images in `key`."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    key: BatchKey


def training_keys(
    count: int,
    batch: int,
    epochs: int,
    seed: int,
    first_step: int = 0,
    cycle: int | None = None,
    order_of: Callable[[int], NDArray[np.int64]] | None = None,
) -> Iterator[BatchKey]:
    """The batches of a training run on `count` images, from `first_step` on. (seed, epoch) alone determine the order.

    An epoch has count // batch steps; it leaves out the remaining images. With `cycle`, the views of epochs
    0..cycle-1 repeat cyclically: view_epoch is epoch % cycle. order_of: returns the `count` indices of an epoch; None:
    a permutation of all images.
    """
    per_epoch = count // batch
    for epoch in range(first_step // per_epoch, epochs):
        order = permutation(seed, epoch, count) if order_of is None else order_of(epoch)
        view_epoch = epoch if cycle is None else epoch % cycle
        for position in range(max(0, first_step - epoch * per_epoch), per_epoch):
            indices = order[position * batch : (position + 1) * batch]
            yield BatchKey(epoch * per_epoch + position, epoch, indices, view_epoch)


def evaluation_keys(count: int, batch: int, rank: int = 0, world_size: int = 1) -> Iterator[BatchKey]:
    """The batches of `rank`, of at most `batch` images, when all `count` images are split once among the ranks.

    All ranks get the same number of batches. The last one may be smaller, or empty.
    """
    for step, start in enumerate(range(0, count, batch * world_size)):
        indices = np.arange(start, min(start + batch * world_size, count))
        yield BatchKey(step, 0, np.array_split(indices, world_size)[rank], 0)


@dataclass
class UnreadableImages:
    """The images that could not be decoded, of `total`. Logs each once; limits their share to `allowed_share`.

    In a small set, the share may be less than one image. Then up to `_ALWAYS_ALLOWED` images, at most a tenth of the
    set (rounded up), may be unreadable, unless `allowed_share` is 0.
    """

    total: int
    allowed_share: float
    names: dict[str, None] = field(default_factory=dict)  # a set that keeps the order

    def add(self, name: str, reason: str) -> None:
        """Adds the image called `name`. Raises InputError if the share of unreadable images is now above the limit."""
        if name in self.names:
            return
        self.names[name] = None
        _logger.warning("unreadable image left out: %s (%s)", name, reason)
        self.check_limit(self.names, "(deleting them makes a new dataset, which needs a new run.dir)")

    def check_limit(self, names: Collection[str], remark: str = "") -> None:
        """Raises InputError if there are more unreadable images, called `names`, than the limit allows."""
        if len(names) > self.limit:
            first = ", ".join(islice(names, 3))
            raise InputError(
                f"{len(names)} of {self.total} images are unreadable, first {first}; that is more than "
                f"data.max_unreadable {self.allowed_share:g} allows ({self.limit})",
                f"repair or delete them, or increase data.max_unreadable {remark}".rstrip(),
            )

    @property
    def limit(self) -> int:
        """How many images may be unreadable."""
        small_set = min(_ALWAYS_ALLOWED, math.ceil(self.total / 10)) if self.allowed_share else 0
        return max(math.floor(self.allowed_share * self.total + 1e-9), small_set)


def load(
    images: Images,
    keys: Iterable[BatchKey],
    crop: ImageCrop,
    workers: int,
    unreadable: UnreadableImages,
    replace_unreadable: bool = False,
) -> Iterator[Batch]:
    """Yields the batch of each of `keys`, in order. Images in memory are used whole.

    Encoded images are decoded by `workers` processes (0: in this one) and cropped by `crop`. An unreadable image is
    left out. With `replace_unreadable`, the next readable image of the dataset replaces it in the batch and in its key,
    so that every batch is full. Raises InputError if too many images are unreadable, or if a worker dies.
    """
    if isinstance(images, ArrayImages):
        return (_take(images, key) for key in keys)
    tall_images_rule()  # compiles the kernel, which forked workers inherit
    part = _images_in_part(crop.size, workers)
    decoder = torch.utils.data.DataLoader(
        _DecodeDataset(images, crop, replace_unreadable),
        batch_sampler=(rows for key in keys for rows in _parts(key, part)),
        collate_fn=partial(_collate, side=crop.size),
        num_workers=workers,
        worker_init_fn=_init_worker,
        prefetch_factor=_PREFETCH_FACTOR if workers else None,
        generator=torch.Generator(),  # its own: the global generator is for the network's noise
    )
    return _decoded_batches(decoder, images, unreadable, crop.size)


def _take(images: ArrayImages, key: BatchKey) -> Batch:
    rows = key.indices % len(images)
    return Batch(images.images[rows], images.labels[rows], key)


def _images_in_part(side: int, workers: int) -> int:
    """How many images a worker decodes and passes on at once. All parts together take half of the free shared memory.

    The size of the parts changes no batch. With workers 0, nothing is passed on.
    """
    if not workers:
        return _PART_BYTES // (3 * side**2) or 1
    free = shutil.disk_usage(_SHARED_MEMORY).free if os.path.isdir(_SHARED_MEMORY) else 1 << 40
    share = free // 2 // (workers * _PREFETCH_FACTOR)
    return max(1, min(_PART_BYTES, share) // (3 * side**2))


def _parts(key: BatchKey, part: int) -> Iterator[list[tuple[BatchKey, int]]]:
    """The (key, row) of each image of a batch, in lists of at most `part`; one with _NO_IMAGE if it has no images."""
    rows = key.indices.tolist() or [_NO_IMAGE]
    for start in range(0, len(rows), part):
        yield [(key, row) for row in rows[start : start + part]]


def _decoded_batches(
    decoder: Iterable[_Part], images: EncodedImages, unreadable: UnreadableImages, side: int
) -> Iterator[Batch]:
    iterator: Any = None
    try:
        iterator = iter(decoder)
        yield from _join_parts(iterator, images, unreadable, side)
    except (RuntimeError, OSError, EOFError) as error:
        workers = getattr(iterator, "_workers", ())
        # All but RuntimeError: the worker died while it passed the shared memory of a batch to this process, or the
        # shared memory is full in this process.
        reason = missing_guard_error(workers) or _worker_failure(error, workers)
        if reason is None:
            raise
        if workers:
            _kill(iterator)
        raise reason from None


def _kill(iterator: Any) -> None:
    """Kills the workers of a DataLoader's iterator, which may wait forever for a lock of a worker that died.

    torch no longer watches them then: otherwise its signal handler raises an error in whatever the main thread does.
    """
    if iterator._worker_pids_set:
        signal_handling._remove_worker_pids(id(iterator))  # type: ignore[attr-defined]
        iterator._worker_pids_set = False
    for worker in iterator._workers:
        worker.kill()
        worker.join()


def _worker_failure(error: Exception, workers: Sequence[Any]) -> InputError | None:
    """The error for a worker that was killed or found the shared memory full; None if `error` is another one."""
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.ENOMEM)
    if is_full or isinstance(error, _SharedMemoryFull) or any(w.exitcode == -signal.SIGBUS for w in workers):
        return InputError(
            f"the shared memory {_SHARED_MEMORY}, through which processes pass decoded images, is full",
            "make it larger (docker run --shm-size=1g), or set data.workers 0 to decode in the training process",
        )
    if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
        return None
    if isinstance(error, OSError) and not isinstance(error, (ConnectionError, FileNotFoundError)):
        return None
    return InputError(
        "a process that decodes images was killed (by the system, if memory ran out)",
        "set run.resume to continue, with fewer data.workers if memory ran out",
    )


def _join_parts(
    parts: Iterator[_Part], images: EncodedImages, unreadable: UnreadableImages, side: int
) -> Iterator[Batch]:
    """The batches that consecutive `parts` make up. Each part is copied, so that its shared memory is free at once."""
    for part in parts:
        key = part.key
        pixels, labels = np.empty((len(key.indices), side, side, 3), np.uint8), np.empty(len(key.indices), np.int64)
        rows, requested = list[int](), 0
        while True:
            log_range_notes(part.notes)
            for index, reason in part.failures:
                unreadable.add(images.name_of(index), reason)
            start, end = len(rows), len(rows) + len(part.rows)
            pixels[start:end], labels[start:end] = part.pixels.numpy(), part.labels.numpy()
            rows += part.rows
            requested += part.requested
            if requested >= len(key.indices):
                break
            del part
            part = next(parts)
        count = len(rows)
        yield Batch(pixels[:count], labels[:count], replace(key, indices=np.array(rows, np.int64)))


def prefetch(items: Iterable[T], depth: int = 3) -> Generator[T, None, None]:
    """Yields `items`, computed up to `depth` ahead in a thread. An exception of the thread is raised here."""
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(kind: str, value: Any) -> None:
        while not stopped.is_set():
            try:
                return ready.put((kind, value), timeout=0.1)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            for item in items:
                put("item", item)
                if stopped.is_set():
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)

    thread = threading.Thread(target=produce, daemon=True, name="kdaug-prefetch")
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        stopped.set()
        thread.join()


@dataclass(frozen=True)
class _Sample:
    """A decoded image (None: unreadable), its row and label; failures: (row, reason) of unreadable images before it."""

    key: BatchKey
    index: int
    label: int
    image: NDArray[np.uint8] | None
    failures: list[tuple[int, str]]


@dataclass(frozen=True)
class _DecodeDataset(torch.utils.data.Dataset[Any]):
    """Decodes the image of a (key, index), or with `replace_unreadable` the first readable one from there on."""

    images: EncodedImages
    crop: ImageCrop
    replace_unreadable: bool

    def __getitem__(self, sample: tuple[BatchKey, int]) -> _Sample:
        (key, index), failures = sample, list[tuple[int, str]]()
        for candidate in self._candidates(index):
            try:
                (sample_id,) = self.images.sample_ids(np.array([candidate]))
                row = candidate % len(self.images)
                image = decode(self.images.files[row], self.crop, key.view_epoch, int(sample_id))
                return _Sample(key, candidate, int(self.images.labels[row]), image, failures)
            except UnreadableImage as error:
                failures.append((candidate, str(error)))
        return _Sample(key, index, -1, None, failures)

    def _candidates(self, index: int) -> Iterable[int]:
        """The indices to try for the image at `index`, in order."""
        if index == _NO_IMAGE:
            return ()
        count = len(self.images)
        others = ((index + step) % count for step in range(1, count)) if self.replace_unreadable else ()
        return chain((index,), others)


class _SharedMemoryFull(RuntimeError):
    """A worker cannot allocate the shared memory for decoded images."""


@dataclass(frozen=True)
class _Part:
    """The readable images of consecutive rows of the batch `key`: pixels [N,side,side,3], labels [N], their `rows`.

    requested: how many images of the batch were asked for. failures: (row, reason) of unreadable images. notes: from
    `take_range_notes`. Pixels and labels are tensors, because a worker passes tensors to the main process in shared
    memory.
    """

    key: BatchKey
    requested: int
    pixels: torch.Tensor
    labels: torch.Tensor
    rows: list[int]
    failures: list[tuple[int, str]]
    notes: RangeNotes


def _collate(samples: list[_Sample], side: int) -> _Part:
    """The part of a batch with the readable ones of `samples`. Raises _SharedMemoryFull in a worker."""
    readable = [(sample, sample.image) for sample in samples if sample.image is not None]
    pixels = np.stack([image for _, image in readable]) if readable else np.zeros((0, side, side, 3), np.uint8)
    tensors = torch.from_numpy(pixels), torch.tensor([sample.label for sample, _ in readable], dtype=torch.int64)
    if torch.utils.data.get_worker_info() is not None:
        # Here and not in the thread that passes them on: its errors would be lost, and the main process would wait.
        _share_memory(tensors)
    failures = [failure for sample in samples for failure in sample.failures]
    rows = [sample.index for sample, _ in readable]
    return _Part(samples[0].key, len(samples), *tensors, rows, failures, take_range_notes())


def _share_memory(tensors: Iterable[torch.Tensor]) -> None:
    """Moves tensors into shared memory. Raises _SharedMemoryFull if there is not enough."""
    try:
        for tensor in tensors:
            tensor.share_memory_()  # type: ignore[no-untyped-call]
    except (RuntimeError, OSError) as error:
        raise _SharedMemoryFull(one_line(error)) from None


def _init_worker(worker: int) -> None:
    """Leaves SIGINT, SIGTERM and SIGHUP, which reach the whole process group, to the parent; uses one thread.

    After SIGTERM or SIGHUP the parent needs the worker until its step is done. A worker that is not closed by then
    exits itself.
    """
    readable_extensions()  # registers Pillow's plugins
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for each in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(each) is not signal.SIG_IGN:  # SIGHUP under nohup
            signal.signal(each, lambda signum, frame: signal.alarm(_SECONDS_AFTER_SIGTERM))
    torch.set_num_threads(1)
