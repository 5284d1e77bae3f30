"""The bundled images are as their README states, and recipes can use a part of them."""

from __future__ import annotations

import hashlib
import os
from importlib import resources
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from kdaug import config
from kdaug.config.datasets import ARRAY_DATASETS, DatasetName
from kdaug.data import ArrayImages, Dataset, datasets, load_dataset
from kdaug.data.images import array_dataset
from kdaug.data.named import load_named
from kdaug.errors import InputError

SHA256 = {
    "train images": "e1427044c614fabc29feeff0f27e6b68f88a9ee2f2cfe7d783b9157159864883",
    "train labels": "2c02745d4ad8b4511333d0eca662ac5664a371860abaa4588b1670e7be59fbdf",
    "test images": "96315b1732ab731e68b8def3c284f34b605f7deb7a61e683c7d786265c827c83",
    "test labels": "b2095bc797d1201e84da76c94012c02d0e6f07af0938df4e00120a3b42d1aa4c",
}


@pytest.fixture(scope="module")
def bundled() -> Dataset:
    return load_dataset(config.Data())


def arrays_of(dataset: Dataset) -> dict[str, ArrayImages]:
    assert isinstance(dataset.train, ArrayImages)
    assert isinstance(dataset.val, ArrayImages)
    return {"train": dataset.train, "test": dataset.val}


def test_arrays_have_the_hashes_of_the_readme(bundled: Dataset) -> None:
    readme = (resources.files("kdaug.data") / "bundled" / "README.md").read_text(encoding="utf-8")
    for split, part in arrays_of(bundled).items():
        arrays = {f"{split} images": part.images, f"{split} labels": part.labels.astype(np.uint8)}
        for name, array in arrays.items():
            assert hashlib.sha256(array.tobytes()).hexdigest() == SHA256[name]
            assert SHA256[name] in readme


def test_classes_are_balanced(bundled: Dataset) -> None:
    for split, per_class in (("train", 1000), ("test", 200)):
        part = arrays_of(bundled)[split]
        assert part.images.shape == (10 * per_class, 28, 28, 1)
        assert_array_equal(np.bincount(part.labels), [per_class] * 10)
        assert part.labels.dtype == np.int64


def test_omniglot_is_as_its_readme_states() -> None:
    dataset = load_dataset(config.Data("omniglot"))
    readme = (resources.files("kdaug.data") / "omniglot" / "README.md").read_text(encoding="utf-8")
    assert len(dataset.classes) == len(set(dataset.classes)) == 242
    for split, part in arrays_of(dataset).items():
        assert part.images.shape == (2420, 28, 28, 1)
        assert_array_equal(np.bincount(part.labels), [10] * 242)
        assert f"{split} images | `{hashlib.sha256(part.images.tobytes()).hexdigest()}`" in readme
        assert 0.05 < part.images.mean() / 255 < 0.1, "white strokes on black"
    pixels = [set(map(bytes, part.images)) for part in arrays_of(dataset).values()]
    assert not pixels[0] & pixels[1], "no drawing is in both splits"


def test_mean_and_std_are_those_of_the_training_images(bundled: Dataset) -> None:
    values = arrays_of(bundled)["train"].images / 255
    assert_allclose((bundled.mean, bundled.std), ((values.mean(),), (values.std(),)), rtol=1e-10)
    assert (bundled.size, bundled.channels, len(bundled.classes)) == ((28, 28), 1, 10)


def test_a_part_is_balanced_and_keeps_the_statistics_of_all(bundled: Dataset) -> None:
    small = load_dataset(config.Data(train_images=503))
    assert set(np.bincount(small.train.labels)) == {50, 51}
    assert len(small.train) == 503
    assert (small.mean, small.std, len(small.val)) == (bundled.mean, bundled.std, len(bundled.val))
    assert small.content == bundled.content == array_dataset("", (), *arrays_of(bundled).values()).content
    whole, part = arrays_of(bundled)["train"], arrays_of(small)["train"]
    label_of = {image.tobytes(): label for image, label in zip(whole.images, whole.labels, strict=True)}
    assert all(label_of[image.tobytes()] == label for image, label in zip(part.images, part.labels, strict=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (config.Data(train_images=10_001), "data.train_images is 10001, but bundled has 10000"),
        (config.Data(image_size=64), "data.image_size is for data.name folder, shards, hub, not bundled; leave it out"),
        (config.Data("cifar-1000"), "there is no dataset 'cifar-1000'; did you mean cifar-10"),  # type: ignore[arg-type]
    ],
)
def test_impossible_settings_are_an_error(settings: config.Data, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(settings)


def test_every_dataset_has_a_loader() -> None:
    assert set(datasets._LOADERS) == set(get_args(DatasetName))
    assert set(datasets._LOADERS) - set(ARRAY_DATASETS) == {"folder", "shards", "hub"}


def test_size_and_channels_are_known_before_the_images_are_read(bundled: Dataset) -> None:
    known = ARRAY_DATASETS["bundled"]
    assert bundled.size == (known.side, known.side) == (config.Data().side,) * 2
    assert bundled.channels == known.channels


@pytest.mark.skipif("KDAUG_DATA" not in os.environ, reason="KDAUG_DATA does not name a folder of official files")
def test_images_are_the_first_of_each_official_class(bundled: Dataset) -> None:
    official = load_named("fashion-mnist", Path(os.environ["KDAUG_DATA"]), download=False)
    for (split, part), per_class in zip(arrays_of(bundled).items(), (1000, 200), strict=True):
        whole = arrays_of(official)[split]
        rows = np.sort(np.concatenate([np.flatnonzero(whole.labels == c)[:per_class] for c in range(10)]))
        assert_array_equal(part.images, whole.images[rows])
        assert_array_equal(part.labels, whole.labels[rows])
    assert bundled.classes == official.classes
