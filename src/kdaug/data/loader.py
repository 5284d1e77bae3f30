"""Loads batches in a deterministic order: from memory, or decoded in worker processes; prefetched in a thread."""

from __future__ import annotations

import logging
import multiprocessing
import queue
import signal
import threading
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from kdaug.data.crops import ImageCrop
from kdaug.data.decode import UnreadableImage, decode
from kdaug.data.images import ArrayImages, EncodedImages, Images
from kdaug.errors import InputError
from kdaug.rng import permutation

T = TypeVar("T")
_logger = logging.getLogger(__name__)
_NO_IMAGE = -1
_SECONDS_AFTER_SIGTERM = 60


@dataclass(frozen=True)
class BatchKey:
    """Which images make up a batch of `epoch`, for optimization step `step`.

    indices: the row of each image in the dataset, int64 [N]; views are drawn for their sample ids
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
    count: int, batch: int, epochs: int, seed: int, first_step: int = 0, cycle: int | None = None
) -> Iterator[BatchKey]:
    """The batches of a training run on `count` images, from `first_step` on. (seed, epoch) alone determine the order.

    An epoch has count // batch steps; it leaves out the remaining images. With `cycle`, the views of epochs
    0..cycle-1 repeat cyclically: view_epoch is epoch % cycle.
    """
    per_epoch = count // batch
    for epoch in range(first_step // per_epoch, epochs):
        order = permutation(seed, epoch, count)
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
    """The images that could not be decoded, of `total`. Logs each once; limits their share to `allowed_share`."""

    total: int
    allowed_share: float
    names: dict[str, None] = field(default_factory=dict)  # a set that keeps the order

    def add(self, name: str, reason: str) -> None:
        """Adds the image called `name`. Raises InputError if the share of unreadable images is now above the limit."""
        if name in self.names:
            return
        self.names[name] = None
        _logger.warning("unreadable image left out: %s (%s)", name, reason)
        if len(self.names) > self.allowed_share * self.total:
            first = ", ".join(islice(self.names, 3))
            raise InputError(
                f"{len(self.names)} of {self.total} images are unreadable, first {first}; that is more than "
                f"data.max_unreadable {self.allowed_share:g}",
                "repair them or increase data.max_unreadable (deleting them makes a new dataset, which needs a new "
                "run.dir)",
            )


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
        return (Batch(images.images[key.indices], images.labels[key.indices], key) for key in keys)
    decoder = torch.utils.data.DataLoader(
        _DecodeDataset(images, crop, replace_unreadable),
        # the (key, row) of each image of a batch; one with _NO_IMAGE if it has none
        batch_sampler=([(key, int(index)) for index in key.indices] or [(key, _NO_IMAGE)] for key in keys),
        collate_fn=partial(_collate, side=crop.size),
        num_workers=workers,
        worker_init_fn=_init_worker,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),  # its own: the global generator is for the network's noise
    )
    return _decoded_batches(decoder, images, unreadable)


def _decoded_batches(
    decoder: Iterable[_Collated], images: EncodedImages, unreadable: UnreadableImages
) -> Iterator[Batch]:
    try:
        for key, pixels, labels, failures in decoder:
            for index, reason in failures:
                unreadable.add(images.name_of(index), reason)
            yield Batch(pixels.numpy(), labels.numpy(), key)
    except (RuntimeError, EOFError, ConnectionError, FileNotFoundError) as error:
        # All but RuntimeError: the worker died while it passed the shared memory of a batch to this process.
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        for worker in multiprocessing.active_children():
            worker.kill()  # it may wait forever for a lock of the dead worker
        raise InputError(
            "a process that decodes images was killed (by the system, if memory ran out)",
            "set run.resume to continue, with fewer data.workers if memory ran out",
        ) from None


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
    """Decodes the image of a (key, row), or with `replace_unreadable` the first readable one from there on."""

    images: EncodedImages
    crop: ImageCrop
    replace_unreadable: bool

    def __getitem__(self, sample: tuple[BatchKey, int]) -> _Sample:
        (key, index), failures = sample, list[tuple[int, str]]()
        for candidate in self._candidates(index):
            try:
                (sample_id,) = self.images.sample_ids(np.array([candidate]))
                image = decode(self.images.files[candidate], self.crop, key.view_epoch, int(sample_id))
                return _Sample(key, candidate, int(self.images.labels[candidate]), image, failures)
            except UnreadableImage as error:
                failures.append((candidate, str(error)))
        return _Sample(key, index, -1, None, failures)

    def _candidates(self, index: int) -> Iterable[int]:
        """The rows to try for the image at row `index`, in order."""
        if index == _NO_IMAGE:
            return ()
        count = len(self.images)
        return ((index + step) % count for step in range(count)) if self.replace_unreadable else (index,)


_Collated = tuple[BatchKey, torch.Tensor, torch.Tensor, list[tuple[int, str]]]


def _collate(samples: list[_Sample], side: int) -> _Collated:
    """(key, images [N,side,side,3], labels [N], failures) of the readable samples.

    Images and labels are tensors, because a worker passes tensors to the main process in shared memory.
    """
    key = samples[0].key
    readable = [(sample, sample.image) for sample in samples if sample.image is not None]
    readable_key = replace(key, indices=np.array([sample.index for sample, _ in readable], np.int64))
    pixels = np.stack([image for _, image in readable]) if readable else np.zeros((0, side, side, 3), np.uint8)
    labels = torch.tensor([sample.label for sample, _ in readable], dtype=torch.int64)
    failures = [failure for sample in samples for failure in sample.failures]
    return readable_key, torch.from_numpy(pixels), labels, failures


def _init_worker(worker: int) -> None:
    """Leaves SIGINT and SIGTERM, which reach the whole process group, to the parent; uses one thread.

    After SIGTERM the parent needs the worker until its step is done. A worker that is not closed by then exits itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda signum, frame: signal.alarm(_SECONDS_AFTER_SIGTERM))
    torch.set_num_threads(1)
