"""Batches in a deterministic order: from memory, or decoded in worker processes; prepared ahead in a thread."""

from __future__ import annotations

import multiprocessing
import queue
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
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
from kdaug.rng.philox import permutation

T = TypeVar("T")
_NO_IMAGE = -1


@dataclass(frozen=True)
class BatchKey:
    """Which samples make up a batch: `indices` int64 [N] into the images, in `epoch`, for optimisation step `step`.

    view_epoch: the epoch whose views they are seen in; another one when views are used again.
    """

    step: int
    epoch: int
    indices: NDArray[np.int64]
    view_epoch: int


@dataclass(frozen=True)
class Batch:
    """`images` uint8 [N,H,W,C], `labels` int64 [N], and where they come from."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    key: BatchKey


def training_keys(
    count: int, batch: int, epochs: int, seed: int, first_step: int = 0, cycle: int | None = None
) -> Iterator[BatchKey]:
    """The batches of a whole training run from `first_step` on; each epoch is shuffled by (seed, epoch) alone.

    `count` images give count // batch steps per epoch; what is left over at its end is not used in that epoch. With
    `cycle` the views of so many epochs are used in turn.
    """
    per_epoch = count // batch
    for epoch in range(first_step // per_epoch, epochs):
        order = permutation(seed, epoch, count)
        start = max(0, first_step - epoch * per_epoch)
        for position in range(start, per_epoch):
            indices = order[position * batch : (position + 1) * batch]
            yield BatchKey(epoch * per_epoch + position, epoch, indices, epoch if cycle is None else epoch % cycle)


def evaluation_keys(count: int, batch: int, rank: int = 0, size: int = 1) -> Iterator[BatchKey]:
    """All images once, in order, shared among `size` ranks; of these, what falls to `rank`, at most `batch` at a time.

    All ranks get as many batches; the last may be smaller, and empty on some.
    """
    for step, start in enumerate(range(0, count, batch * size)):
        indices = np.arange(start, min(start + batch * size, count))
        yield BatchKey(step, 0, np.array_split(indices, size)[rank], 0)


@dataclass
class UnreadableImages:
    """Counts the files that could not be decoded, names each once, and stops when they are more than allowed."""

    total: int
    allowed_share: float
    report: Callable[[str], None]
    seen: dict[str, None] = field(default_factory=dict)  # in the order they turned up

    def add(self, name: str, reason: str) -> None:
        """Notes the file called `name`; InputError if now more than the allowed share of images is unreadable."""
        if name in self.seen:
            return
        self.seen[name] = None
        self.report(f"unreadable image left out: {name} ({reason})")
        if len(self.seen) > self.allowed_share * self.total:
            first = ", ".join(islice(self.seen, 3))
            raise InputError(
                f"{len(self.seen)} of {self.total} images are unreadable, first {first}; that is more than "
                f"data.max_unreadable {self.allowed_share:g}: mend them, or allow more; without them it is another "
                "data set, which needs a new --run.dir"
            )


def load(
    images: Images,
    keys: Iterable[BatchKey],
    crop: ImageCrop | None,
    workers: int,
    unreadable: UnreadableImages,
    replace_unreadable: bool = False,
) -> Iterator[Batch]:
    """The batches `keys` of `images`, in order. Encoded images need a `crop` and are decoded by `workers` processes.

    An unreadable image is left out; with `replace_unreadable`, the next readable one of the set takes its place, in
    the batch and in its key, so that every batch is full. Raises InputError if a worker dies.
    """
    if isinstance(images, ArrayImages):
        for key in keys:
            yield Batch(images.images[key.indices], images.labels[key.indices], key)
        return
    assert crop is not None
    decoded = torch.utils.data.DataLoader(
        _DecodeDataset(images, crop, replace_unreadable),
        batch_sampler=_KeySampler(keys),
        collate_fn=partial(_collate, side=crop.size),
        num_workers=workers,
        worker_init_fn=_init_worker,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),  # its own, so that decoding draws nothing from the network's generator
    )
    for key, pixels, labels, failures in _check_workers(decoded):
        for index, reason in failures:
            unreadable.add(images.name_of(index), reason)
        yield Batch(pixels.numpy(), labels.numpy(), key)


def _check_workers(decoded: Iterable[T]) -> Iterator[T]:
    try:
        yield from decoded
    except (RuntimeError, EOFError, ConnectionError, FileNotFoundError) as error:
        # the latter: it died while it handed over the memory in which a batch lies
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        for other in multiprocessing.active_children():
            other.kill()  # it may wait for ever for what the dead one held
        raise InputError(
            "a process that decodes images was killed (by the system, if memory ran out); continue with --run.resume, "
            "perhaps with fewer --data.workers"
        ) from None


def prefetch(items: Iterable[T], depth: int = 3) -> Generator[T, None, None]:
    """The same items, up to `depth` of them made ahead in a thread; an exception there is raised here."""
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


class _KeySampler:
    """A batch sampler: the samples of each key, each carrying its key."""

    def __init__(self, keys: Iterable[BatchKey]) -> None:
        self.keys = keys

    def __iter__(self) -> Iterator[list[tuple[BatchKey, int]]]:
        for key in self.keys:
            yield [(key, int(index)) for index in key.indices] or [(key, _NO_IMAGE)]


@dataclass(frozen=True)
class _Sample:
    """A place in a batch, the image that came to stand in it (None: none could be read), and what failed before."""

    key: BatchKey
    index: int
    label: int
    image: NDArray[np.uint8] | None
    failures: list[tuple[int, str]]


@dataclass(frozen=True)
class _DecodeDataset(torch.utils.data.Dataset[Any]):
    images: EncodedImages
    crop: ImageCrop
    replace_unreadable: bool

    def __getitem__(self, sample: tuple[BatchKey, int]) -> _Sample:
        (key, index), failures = sample, list[tuple[int, str]]()
        for candidate in self._candidates(index):
            try:
                (view_key,) = self.images.view_keys(np.array([candidate]))
                image = decode(self.images.files[candidate], self.crop, key.view_epoch, int(view_key))
                return _Sample(key, candidate, int(self.images.labels[candidate]), image, failures)
            except UnreadableImage as error:
                failures.append((candidate, str(error)))
        return _Sample(key, index, -1, None, failures)

    def _candidates(self, index: int) -> Iterable[int]:
        """The images that may stand in the place of `index`, the first that can be read will."""
        if index == _NO_IMAGE:
            return ()
        count = len(self.images)
        return ((index + step) % count for step in range(count)) if self.replace_unreadable else (index,)


def _collate(places: list[_Sample], side: int) -> tuple[BatchKey, torch.Tensor, torch.Tensor, list[tuple[int, str]]]:
    """One batch of decoded images of `side` pixels (tensors, which travel through shared memory), and its failures."""
    key = places[0].key
    good = [(place, place.image) for place in places if place.image is not None]
    kept = replace(key, indices=np.array([place.index for place, _ in good], np.int64))
    pixels = np.stack([image for _, image in good]) if good else np.zeros((0, side, side, 3), np.uint8)
    labels = torch.tensor([place.label for place, _ in good], dtype=torch.int64)
    return kept, torch.from_numpy(pixels), labels, [failure for place in places for failure in place.failures]


def _init_worker(worker: int) -> None:
    """Ctrl-C, and a service manager's SIGTERM, reach every process of the group; the parent decides what they mean.

    After SIGTERM it has a minute to finish its step; a worker that nobody closes then goes by itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda signum, crop: signal.alarm(60))
    torch.set_num_threads(1)
