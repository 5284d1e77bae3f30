"""ViewTransform and ViewDataset: types of images, views with and without index, DataLoader workers."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torchvision.transforms import Compose, PILToTensor

from kdaug import InputError, ViewDataset, ViewTransform, apply, create_policy

SPEC = "randaugment-n2-m9@tf-efficientnet,pad-crop-4,flip"
PIXELS = np.random.default_rng(0).integers(0, 256, (8, 12, 10, 3), np.uint8)


def expected(index: int, epoch: int = 0, seed: int = 0, image: int = 0) -> np.ndarray[Any, Any]:
    return apply(PIXELS[image : image + 1], create_policy(SPEC).plan(seed, epoch, [index], (12, 10)))[0]


# One image


def test_a_view_with_an_index_is_that_of_the_plan() -> None:
    transform = ViewTransform(SPEC, seed=3)
    transform.set_epoch(2)
    view = transform(Image.fromarray(PIXELS[0]), index=5)
    assert (view.mode, view.size) == ("RGB", (10, 12))
    assert_array_equal(np.asarray(view), expected(5, epoch=2, seed=3))
    tensor = transform(torch.from_numpy(PIXELS[0]).permute(2, 0, 1), index=5)
    assert (tensor.dtype, tensor.shape) == (torch.uint8, (3, 12, 10))
    assert_array_equal(tensor.permute(1, 2, 0), np.asarray(view))


def test_a_policy_object_works_as_its_specification() -> None:
    assert_array_equal(np.asarray(ViewTransform(create_policy(SPEC))(Image.fromarray(PIXELS[0]), index=1)), expected(1))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_gray_and_color_keep_their_mode(mode: str) -> None:
    image = Image.fromarray(PIXELS[0]).convert(mode)
    view = ViewTransform(SPEC)(image, index=0)
    assert view.mode == mode
    tensor = ViewTransform(SPEC)(PILToTensor()(image), index=0)
    assert_array_equal(tensor, PILToTensor()(view))


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_other_8_bit_modes_become_rgb(mode: str) -> None:
    image = Image.fromarray(PIXELS[0]).convert(mode)
    view = ViewTransform("none")(image)
    assert view.mode == "RGB"
    assert_array_equal(np.asarray(view), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (Image.new("F", (4, 4)), "mode F has no 8-bit colors"),
        (Image.new("I;16", (4, 4)), "mode I;16 has no 8-bit colors"),
        (torch.zeros(3, 4, 4), "takes uint8 tensors, not torch.float32"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), r"C 1 or 3, not \[2, 3, 4, 4\]"),
        (torch.zeros(4, 4, 4, dtype=torch.uint8), r"C 1 or 3, not \[4, 4, 4\]"),
        (torch.zeros(4, 4, dtype=torch.uint8), r"not \[4, 4\]"),
        (np.zeros((4, 4, 3), np.uint8), "takes a PIL image or a uint8 tensor .*, not ndarray"),
        (None, "not NoneType"),
    ],
)
def test_other_images_are_refused(image: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        ViewTransform(SPEC)(image)


def test_the_input_is_unchanged_and_the_view_writable() -> None:
    image = Image.fromarray(PIXELS[0])
    tensor = torch.from_numpy(PIXELS[0].copy()).permute(2, 0, 1)
    for policy in ("none", SPEC):
        view = ViewTransform(policy)(image)
        view.putpixel((0, 0), (1, 2, 3))
        view = ViewTransform(policy)(tensor)
        view += 1
    assert_array_equal(np.asarray(image), PIXELS[0])
    assert_array_equal(tensor.permute(1, 2, 0), PIXELS[0])


@pytest.mark.parametrize(("seed", "epoch"), [(-1, 0), (2**64, 0), (0, -1), (0, 2**32)])
def test_seeds_and_epochs_out_of_range_are_refused(seed: int, epoch: int) -> None:
    with pytest.raises(InputError, match="must be from 0 to 2"):
        ViewTransform(SPEC, seed).set_epoch(epoch)


def test_a_negative_index_is_refused() -> None:
    with pytest.raises(InputError, match="index is -1, but must be at least 0"):
        ViewTransform(SPEC)(Image.fromarray(PIXELS[0]), index=-1)


# Views without an index


def next_views(transform: Any, count: int, size: tuple[int, int] = (12, 10)) -> list[bytes]:
    image = Image.fromarray(PIXELS[0]).resize(size[::-1])
    return [np.asarray(transform(image)).tobytes() for _ in range(count)]


def test_without_an_index_views_are_counted_from_zero() -> None:
    """For more than one block of the largest size."""
    views = next_views(ViewTransform(SPEC), 530)
    plan = create_policy(SPEC).plan(0, 0, np.arange(530), (12, 10))
    assert views == [view.tobytes() for view in apply(np.repeat(PIXELS[:1], 530, 0), plan)]


def test_changing_sizes_do_not_change_the_count() -> None:
    transform = ViewTransform(SPEC)
    sizes = [(12, 10)] * 5 + [(9, 9)] + [(12, 10)] * 3 + [(9, 9)] * 4 + [(12, 10)]
    views = [next_views(transform, 1, size)[0] for size in sizes]
    for number, size in enumerate(sizes):
        if size == (12, 10):
            assert views[number] == expected(number).tobytes()


def test_set_epoch_restarts_the_count() -> None:
    transform = ViewTransform(SPEC)
    first = next_views(transform, 5)
    transform.set_epoch(0)
    assert next_views(transform, 5) == first
    transform.set_epoch(1)
    assert next_views(transform, 5) == [expected(number, epoch=1).tobytes() for number in range(5)]
    assert transform.epoch == 1


def test_a_pickled_transform_restarts_the_count() -> None:
    transform = ViewTransform(SPEC, seed=9)
    transform.set_epoch(4)
    next_views(transform, 7)
    again = pickle.loads(pickle.dumps(transform))
    assert next_views(again, 3) == [expected(number, epoch=4, seed=9).tobytes() for number in range(3)]


# Workers


class Pictures(Dataset[Any]):
    """The same image at every index, with a transform that gets no index."""

    def __init__(self, transform: Any = None, count: int = 24) -> None:
        self.transform, self.count = transform, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.fromarray(PIXELS[0])
        return (self.transform(image) if self.transform else image), index


def passes(loader: DataLoader[Any], count: int) -> list[list[bytes]]:
    return [[view.numpy().tobytes() for views, _ in loader for view in views] for _ in range(count)]


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_and_passes_give_different_views(persistent: bool) -> None:
    transform = Compose([ViewTransform(SPEC), PILToTensor()])
    for _ in range(9):  # forked workers inherit the plans drawn ahead here, but must not use them
        transform(Image.fromarray(PIXELS[0]))
    torch.manual_seed(0)  # the loaders' base seed
    loader = DataLoader(Pictures(transform), batch_size=4, num_workers=2, persistent_workers=persistent)
    views = [view for one in passes(loader, 2) for view in one]
    assert len(set(views)) > 0.9 * len(views)


def test_set_epoch_works_for_running_workers() -> None:
    transform = ViewTransform(SPEC)
    loader = DataLoader(
        Pictures(Compose([transform, PILToTensor()])), batch_size=4, num_workers=2, persistent_workers=True
    )
    views = []
    for epoch in (0, 1, 0):
        transform.set_epoch(epoch)
        views.append(sorted(passes(loader, 1)[0]))
    expected_views = [
        sorted(PILToTensor()(Image.fromarray(expected(number, epoch))).numpy().tobytes() for number in range(24))
        for epoch in (0, 1)
    ]
    assert views[:2] == expected_views


@pytest.mark.parametrize(("workers", "batch"), [(0, 4), (2, 4), (2, 7)])
def test_dataset_views_depend_on_the_index_only(workers: int, batch: int) -> None:
    transform = ViewTransform(SPEC)
    dataset = ViewDataset(Pictures(), transform, then=PILToTensor())
    assert len(dataset) == 24
    transform.set_epoch(3)
    loader = DataLoader(dataset, batch_size=batch, num_workers=workers, shuffle=True)
    views_by_index = {int(label): view for views, labels in loader for view, label in zip(views, labels, strict=True)}
    assert sorted(views_by_index) == list(range(24))
    for index, view in views_by_index.items():
        assert_array_equal(view.permute(1, 2, 0), expected(index, epoch=3))


def test_dataset_takes_several_sizes_and_negative_indices() -> None:
    class Sizes(Pictures):
        def __getitem__(self, index: int) -> tuple[Any, int]:
            image = Image.fromarray(PIXELS[0])
            return (image if index % 3 else image.resize((7, 5)).convert("L" if index % 2 else "RGB")), index

    dataset = ViewDataset(Sizes(), ViewTransform(SPEC))
    batch = dataset.__getitems__([0, 1, 3, 5, 4])
    for (view, label), index in zip(batch, [0, 1, 3, 5, 4], strict=True):
        assert label == index
        assert_array_equal(np.asarray(view), np.asarray(dataset[index][0]))
    assert_array_equal(np.asarray(dataset[-1][0]), np.asarray(dataset[23][0]))
    assert not issubclass(type(dataset), IterableDataset)


@pytest.mark.parametrize(
    "make", [lambda: ViewTransform(None), lambda: ViewTransform("flip", seed=1.5), lambda: ViewDataset([], "flip")]
)
def test_invalid_arguments_are_refused_at_construction(make: Any) -> None:
    with pytest.raises(InputError, match=r"ViewTransform"):
        make()
