"""Views in torchvision pipelines: a transform of single images, and a dataset wrapper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdaug.errors import InputError, is_integer
from kdaug.views.execution import apply, apply_unchecked
from kdaug.views.plan import Size, ViewPlan, check_plan
from kdaug.views.policies import Policy, create_policy

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_MAX_BLOCK = 256  # plans drawn ahead
_SEEDS = 1 << 64
_KEPT_MODES = frozenset({"L", "RGB"})
_CONVERTED_MODES = frozenset({"1", "P", "PA", "LA", "La", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})


class ViewTransform:
    """A policy as a torchvision-style transform of one image.

    policy: a specification or a Policy. seed: 0..2^64-1.

    Takes a PIL image or a uint8 tensor [C,H,W] with C 1 or 3, and returns the same type. PIL images keep the modes L
    and RGB; 1, P, PA, LA, La, RGBA, RGBa, RGBX, CMYK, YCbCr, LAB and HSV become RGB. Raises InputError for other modes,
    dtypes and shapes.

    `transform(image, index=i)` depends on (seed, epoch, i) only; `ViewDataset` passes the index of each sample.
    Without an index, the transform counts its calls and uses the count as index. DataLoader workers use different
    numbers, so they do not repeat each other's views. `set_epoch` resets the count, also in running workers. Without
    `set_epoch`, new workers start to count from 0 in each pass over the data; so that passes differ, they add the
    loader's base seed (determined by torch.manual_seed) to `seed`.
    """

    def __init__(self, policy: str | Policy, seed: int = 0) -> None:
        import torch

        if not isinstance(policy, str) and not hasattr(policy, "plan"):
            raise InputError(f"ViewTransform takes a specification or a policy, not {type(policy).__name__}")
        if not is_integer(seed) or not 0 <= seed < _SEEDS:
            raise InputError(f"ViewTransform: seed is {seed}, but must be from 0 to 2^64-1")
        self.policy = create_policy(policy) if isinstance(policy, str) else policy
        self.seed = seed
        self._epoch = torch.full((1,), -1, dtype=torch.int64)  # -1: set_epoch has not been called
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]
        self._counter = _PlanCounter()

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch (0..2^32-1) of all further views and resets the count of calls without an index."""
        if not is_integer(epoch) or not 0 <= epoch < 1 << 32:
            raise InputError(f"ViewTransform: epoch is {epoch}, but must be from 0 to 2^32-1")
        self._epoch[0] = epoch
        self._counter = _PlanCounter()

    @property
    def epoch(self) -> int:
        """The epoch of the last `set_epoch`; 0 before the first."""
        return max(int(self._epoch.item()), 0)

    def __call__(self, image: Image | Tensor, index: int | None = None) -> Any:
        """The view of one image. index: the sample's position in the dataset, at least 0; None: see the class."""
        pixels, restore = _to_array(image)
        size = pixels.shape[1:3]
        if index is None:
            plan = self._counter.next_plan(self.policy, self.seed, int(self._epoch.item()), size)
            return restore(apply_unchecked(pixels, plan, threads=1)[0])  # checked when it was drawn
        if index < 0:
            raise InputError(f"ViewTransform: index is {index}, but must be at least 0")
        return restore(apply(pixels, self.policy.plan(self.seed, self.epoch, [index], size), threads=1)[0])

    def views(self, images: Sequence[Image | Tensor], indices: Sequence[int]) -> list[Any]:
        """The views of several images with their indices; the same as one call each, but faster."""
        arrays = [_to_array(image) for image in images]
        views: list[Any] = [None] * len(arrays)
        for shape in {pixels.shape[1:] for pixels, _ in arrays}:
            rows = [row for row, (pixels, _) in enumerate(arrays) if pixels.shape[1:] == shape]
            plan = self.policy.plan(self.seed, self.epoch, np.array([indices[row] for row in rows]), shape[:2])
            batch = apply(np.concatenate([arrays[row][0] for row in rows]), plan, threads=1)
            for row, view in zip(rows, batch, strict=True):
                restore = arrays[row][1]
                views[row] = restore(view)
        return views

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_counter": _PlanCounter()}

    def __repr__(self) -> str:
        return f"ViewTransform({self.policy!r}, seed={self.seed})"


class ViewDataset:
    """A map-style dataset whose images are replaced by views that depend on (seed, epoch, index) only.

    Workers, order and batches do not change them. dataset: map-style, with samples (image, ...). transform: call its
    `set_epoch` in each epoch. then: a transform applied to each view afterwards, such as ToTensor().
    """

    def __init__(self, dataset: Any, transform: ViewTransform, then: Callable[[Any], Any] | None = None) -> None:
        if not isinstance(transform, ViewTransform):
            raise InputError(f"ViewDataset takes a ViewTransform, not {type(transform).__name__}")
        self.dataset = dataset
        self.transform = transform
        self.then = then

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[tuple[Any, ...]]:
        """The samples of one batch; PyTorch's DataLoader calls this if it exists."""
        samples = [tuple(self.dataset[index]) for index in indices]
        positions = [range(len(self.dataset))[index] for index in indices]  # -1 is the last
        views = self.transform.views([sample[0] for sample in samples], positions)
        if self.then is not None:
            views = [self.then(view) for view in views]
        return [(view, *sample[1:]) for view, sample in zip(views, samples, strict=True)]


class _PlanCounter:
    """Draws plans for calls without an index: counts the calls, and draws blocks of plans ahead for one image size."""

    def __init__(self) -> None:
        self._key: tuple[int, Any] | None = None  # epoch and worker of the block; a forked worker inherits its parent's
        self._count = 0
        self._block: ViewPlan | None = None
        self._row = 0
        self._length = 1

    def next_plan(self, policy: Policy, seed: int, epoch: int, size: Size) -> ViewPlan:
        """The plan of the next image, of `size`. epoch: -1 if `set_epoch` has not been called."""
        from torch.utils.data import get_worker_info

        worker = get_worker_info()  # None in the main process
        if self._key != (epoch, worker):
            self._key, self._count, self._block = (epoch, worker), 0, None
        block = self._block
        if block is None or self._row == len(block) or block.size != size:
            same_size = block is not None and block.size == size
            self._length = min(2 * self._length, _MAX_BLOCK) if same_size else 1
            block = self._block = self._draw(policy, seed, epoch, size, worker)
            self._row = 0
        row = self._row
        self._row += 1
        self._count += 1
        return block[row : row + 1]

    def _draw(self, policy: Policy, seed: int, epoch: int, size: Size, worker: Any) -> ViewPlan:
        numbers = self._count + np.arange(self._length)
        if worker is not None:
            numbers = numbers * worker.num_workers + worker.id
            if epoch < 0:
                seed = (seed + worker.seed - worker.id) % _SEEDS
        plan = policy.plan(seed, max(epoch, 0), numbers, size)
        if plan.size != size or len(plan) != len(numbers):
            raise InputError(
                f"ViewTransform: {policy!r} returns a plan for {len(plan)} images of {plan.size}, "
                f"not for {len(numbers)} images of {size}"
            )
        check_plan(plan)
        return plan


def _to_array(image: Any) -> tuple[NDArray[np.uint8], Callable[[NDArray[np.uint8]], Any]]:
    """The image as uint8 [1,H,W,C], and a function that converts uint8 [H,W,C] to the same type of image."""
    mode = getattr(image, "mode", None)
    if not isinstance(mode, str):  # Tensor.mode is a method
        return _tensor_to_array(image)
    if mode not in _KEPT_MODES:
        if mode not in _CONVERTED_MODES:
            raise InputError(f"ViewTransform: an image of mode {mode} has no 8-bit colors", "convert it to L or RGB")
        image = image.convert("RGB")
    channels = 1 if mode == "L" else 3
    width, height = image.size
    return np.frombuffer(image.tobytes(), np.uint8).reshape(1, height, width, channels), _to_pillow


def _tensor_to_array(image: Any) -> tuple[NDArray[np.uint8], Callable[[NDArray[np.uint8]], Any]]:
    import torch

    if not isinstance(image, torch.Tensor):
        raise InputError(f"ViewTransform takes a PIL image or a uint8 tensor [C,H,W], not {type(image).__name__}")
    if image.dtype != torch.uint8:
        raise InputError(f"ViewTransform takes uint8 tensors, not {image.dtype}", "use it before ToTensor or ToDtype")
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise InputError(f"ViewTransform takes one image [C,H,W] with C 1 or 3, not {list(image.shape)}")
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())[None]
    return pixels, lambda view: torch.from_numpy(view).permute(2, 0, 1).contiguous().to(image.device)


def _to_pillow(view: NDArray[np.uint8]) -> Image:
    from PIL import Image

    height, width, channels = view.shape
    image = Image.new("L" if channels == 1 else "RGB", (width, height), None)
    image.frombytes(view.tobytes())  # faster than Image.frombytes and Image.frombuffer
    return image
