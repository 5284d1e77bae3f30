"""Views for torchvision pipelines: one image in, the same kind of image out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdaug.errors import InputError, is_integer
from kdaug.views.apply import apply, apply_unchecked
from kdaug.views.plan import Size, ViewPlan, check_plan
from kdaug.views.policies import Policy, create_policy

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_LONGEST_BLOCK = 256
_SEEDS = 1 << 64


class ViewTransform:
    """A policy as a torchvision-style transform: PIL image or uint8 tensor [C,H,W] in, the same kind out.

    `policy` is a specification or a Policy. PIL images of mode L and RGB keep their mode; 1, P, PA, LA, La, RGBA, RGBa,
    RGBX, CMYK, YCbCr, LAB and HSV become RGB; other modes, float tensors, batches and other channel counts are
    InputErrors.

    With `transform(image, index=i)` the view depends on (seed, epoch, i) alone; `Keyed` does this for a whole data
    set. Without an index the views are numbered: each DataLoader worker takes numbers of its own, so no two give the
    same sequence. `set_epoch` reaches running workers too and starts the numbers again. Until it is called, the
    numbers just go on, and workers, which begin anew with every pass, mix in their loader's base seed (which
    torch.manual_seed fixes), so that no two passes look alike.
    """

    def __init__(self, policy: str | Policy, seed: int = 0) -> None:
        import torch

        if not isinstance(policy, str) and not hasattr(policy, "plan"):
            raise InputError(f"ViewTransform takes a specification or a policy, not {type(policy).__name__}")
        if not is_integer(seed) or not 0 <= seed < _SEEDS:
            raise InputError(f"ViewTransform: seed is {seed}, but must be from 0 to 2^64-1")
        self.policy = create_policy(policy) if isinstance(policy, str) else policy
        self.seed = seed
        self._epoch = torch.full((1,), -1, dtype=torch.int64)  # -1: set_epoch was not called
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]
        self._numbered = _Numbered()

    def set_epoch(self, epoch: int) -> None:
        """Views of `epoch` (0..2^32-1) from now on."""
        if not is_integer(epoch) or not 0 <= epoch < 1 << 32:
            raise InputError(f"ViewTransform: epoch is {epoch}, but must be from 0 to 2^32-1")
        self._epoch[0] = epoch
        self._numbered = _Numbered()

    @property
    def epoch(self) -> int:
        """What set_epoch said last; 0 before."""
        return max(int(self._epoch.item()), 0)

    def __call__(self, image: Image | Tensor, index: int | None = None) -> Any:
        """The view of one image; `index` is the sample's position in the data set."""
        pixels, restore = _opened(image)
        size = pixels.shape[1:3]
        if index is None:
            plan = self._numbered.next_plan(self.policy, self.seed, int(self._epoch.item()), size)
            return restore(apply_unchecked(pixels, plan, threads=1)[0])  # checked with its block
        if index < 0:
            raise InputError(f"ViewTransform: index is {index}, but must be at least 0")
        return restore(apply(pixels, self.policy.plan(self.seed, self.epoch, [index], size), threads=1)[0])

    def views(self, images: Sequence[Image | Tensor], indices: Sequence[int]) -> list[Any]:
        """The views of several images with their indices, as one by one, but drawn together: faster."""
        opened = [_opened(image) for image in images]
        seen: list[Any] = [None] * len(opened)
        for size in {pixels.shape[1:] for pixels, _ in opened}:
            rows = [row for row, (pixels, _) in enumerate(opened) if pixels.shape[1:] == size]
            plan = self.policy.plan(self.seed, self.epoch, np.array([indices[row] for row in rows]), size[:2])
            changed = apply(np.concatenate([opened[row][0] for row in rows]), plan, threads=1)
            for row, view in zip(rows, changed, strict=True):
                seen[row] = opened[row][1](view)
        return seen

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_numbered": _Numbered()}

    def __repr__(self) -> str:
        return f"ViewTransform({self.policy!r}, seed={self.seed})"


class Keyed:
    """A data set whose samples (image, ...) get views keyed by their index: the same in any worker, order and batch.

    `then` is applied to each view (ToTensor, say). Usable wherever a map-style data set is.
    """

    def __init__(self, dataset: Any, transform: ViewTransform, then: Callable[[Any], Any] | None = None) -> None:
        if not isinstance(transform, ViewTransform):
            raise InputError(f"Keyed takes a ViewTransform, not {type(transform).__name__}")
        self.dataset = dataset
        self.transform = transform
        self.then = then

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[tuple[Any, ...]]:
        """The samples at `indices`, a whole batch for PyTorch's loader."""
        samples = [tuple(self.dataset[index]) for index in indices]
        positions = [range(len(self.dataset))[index] for index in indices]  # -1 is the last
        views = self.transform.views([sample[0] for sample in samples], positions)
        finished = views if self.then is None else [self.then(view) for view in views]
        return [(view, *sample[1:]) for view, sample in zip(finished, samples, strict=True)]


class _Numbered:
    """Plans for views that have a number instead of an index; drawn ahead in blocks while the size stays the same."""

    def __init__(self) -> None:
        self._drawn_for: tuple[int, Any] | None = None  # epoch and worker; a forked worker inherits its parent's
        self._number = 0
        self._block: ViewPlan | None = None
        self._row = 0
        self._length = 1

    def next_plan(self, policy: Policy, seed: int, epoch: int, size: Size) -> ViewPlan:
        """The plan of the next number, for one image of `size`; an epoch of -1 stands for none."""
        worker = _worker_info()
        if self._drawn_for != (epoch, worker):
            self._drawn_for, self._number, self._block = (epoch, worker), 0, None
        block = self._block
        if block is None or self._row == len(block) or block.size != size:
            same_size = block is not None and block.size == size
            self._length = min(2 * self._length, _LONGEST_BLOCK) if same_size else 1
            block = self._block = self._draw(policy, seed, epoch, size, worker)
            self._row = 0
        row = self._row
        self._row += 1
        self._number += 1
        return block[row : row + 1]

    def _draw(self, policy: Policy, seed: int, epoch: int, size: Size, worker: Any) -> ViewPlan:
        numbers = self._number + np.arange(self._length)
        if worker is not None:
            numbers = numbers * worker.num_workers + worker.id
            if epoch < 0:
                seed = (seed + worker.seed - worker.id) % _SEEDS
        plan = policy.plan(seed, max(epoch, 0), numbers, size)
        if plan.size != size or len(plan) != len(numbers):
            raise InputError(f"ViewTransform: {policy!r} plans for {len(plan)} images of {plan.size}, not as asked")
        check_plan(plan)
        return plan


def _worker_info() -> Any:
    """Who we are among the workers of a DataLoader; None in the main process."""
    from torch.utils.data import get_worker_info

    return get_worker_info()


_KEPT = frozenset({"L", "RGB"})
_CONVERTED = frozenset({"1", "P", "PA", "LA", "La", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})


def _opened(image: Any) -> tuple[NDArray[np.uint8], Callable[[NDArray[np.uint8]], Any]]:
    """An image as uint8 [1,H,W,C], and what makes the same kind of image of uint8 [H,W,C]."""
    mode = getattr(image, "mode", None)
    if not isinstance(mode, str):  # a tensor has a method of that name
        return _opened_tensor(image)
    if mode not in _KEPT:
        if mode not in _CONVERTED:
            raise InputError(f"ViewTransform: an image of mode {mode} has no 8-bit colours; convert it to L or RGB")
        image = image.convert("RGB")
    channels = 1 if mode == "L" else 3
    width, height = image.size
    return np.frombuffer(image.tobytes(), np.uint8).reshape(1, height, width, channels), _to_pillow


def _opened_tensor(image: Any) -> tuple[NDArray[np.uint8], Callable[[NDArray[np.uint8]], Any]]:
    import torch

    if not isinstance(image, torch.Tensor):
        raise InputError(f"ViewTransform takes a PIL image or a uint8 tensor [C,H,W], not {type(image).__name__}")
    if image.dtype != torch.uint8:
        raise InputError(f"ViewTransform takes uint8 tensors, not {image.dtype}; put it before ToTensor or ToDtype")
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise InputError(f"ViewTransform takes one image [C,H,W] with C 1 or 3, not {list(image.shape)}")
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())[None]
    return pixels, lambda view: torch.from_numpy(view).permute(2, 0, 1).contiguous().to(image.device)


def _to_pillow(view: NDArray[np.uint8]) -> Image:
    from PIL import Image

    height, width, channels = view.shape
    image = Image.new("L" if channels == 1 else "RGB", (width, height), None)
    image.frombytes(view.tobytes())  # quicker than Image.frombytes, and than Image.frombuffer, which copies too
    return image
