"""Hugging Face datasets on disk, written by the library datasets in each of its formats; errors for invalid ones."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from kdaug import config
from kdaug.data import EncodedImages, load_dataset
from kdaug.data.crops import CenterCrop
from kdaug.data.decode import decode
from kdaug.errors import InputError

NAMES = ["cat", "dog", "owl"]
ANIMALS = datasets.ClassLabel(names=NAMES)


@pytest.fixture(autouse=True)
def _no_network_and_empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def png(number: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (9, 9, 3), np.uint8)).save(content, "png")
    return content.getvalue()


def table(count: int, first: int = 0, **columns: Any) -> datasets.Dataset:
    """`count` images with labels 0, 1, 2, 0, ... and another column, which comes first."""
    numbers = range(first, first + count)
    features = {"id": datasets.Value("int64"), "photo": datasets.Image(), "animal": ANIMALS}
    content = {
        "id": list(numbers),
        "photo": [{"bytes": png(number), "path": None} for number in numbers],
        "animal": [number % 3 for number in numbers],
    }
    return datasets.Dataset.from_dict(content | columns, datasets.Features(features))


def to_disk(splits: dict[str, datasets.Dataset], folder: Path) -> None:
    datasets.DatasetDict(splits).save_to_disk(folder)


def to_parquet(splits: dict[str, datasets.Dataset], folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, split in splits.items():
        split.to_parquet(folder / f"{name}-00000-of-00001.parquet")


def read(root: Path, **options: object) -> Any:
    return load_dataset(config.check(config.Recipe(data=config.Data(name="hub", root=str(root), **options))).data)


def numbers_of(images: EncodedImages) -> list[int]:
    """The numbers that the images were made from, found by their pixels."""
    number_of = {np.asarray(Image.open(io.BytesIO(png(number)))).tobytes(): number for number in range(60)}
    return [
        number_of[np.asarray(Image.open(io.BytesIO(images.files[row].read_bytes()))).tobytes()]
        for row in range(len(images))
    ]


@pytest.mark.parametrize("save", [to_disk, to_parquet])
@pytest.mark.parametrize("val_name", ["validation", "test"])
def test_all_images_and_labels_of_a_folder_are_read(
    val_name: str, save: Callable[[dict[str, datasets.Dataset], Path], None], tmp_path: Path
) -> None:
    save({"train": table(30), val_name: table(12, 30)}, tmp_path / "animals")
    dataset = read(tmp_path / "animals")
    assert dataset.classes == tuple(NAMES)
    assert numbers_of(dataset.train) == list(range(30))
    assert numbers_of(dataset.val) == list(range(30, 42))
    assert dataset.train.labels.tolist() == [number % 3 for number in range(30)]
    assert dataset.val.labels.tolist() == [number % 3 for number in range(30, 42)]


def test_without_a_split_part_of_each_class_is_held_out(tmp_path: Path) -> None:
    to_disk({"train": table(30)}, tmp_path / "animals")
    dataset = read(tmp_path / "animals", val_fraction=0.2)
    assert np.bincount(dataset.val.labels).tolist() == [2, 2, 2]
    assert sorted(numbers_of(dataset.train) + numbers_of(dataset.val)) == list(range(30))
    assert [number % 3 for number in numbers_of(dataset.val)] == dataset.val.labels.tolist()


def test_a_split_without_labels_is_not_used(tmp_path: Path) -> None:
    splits = {"train": table(30), "validation": table(3, 30, animal=[-1, -1, -1]), "test": table(3, 33)}
    to_disk(splits, tmp_path / "animals")
    assert numbers_of(read(tmp_path / "animals").val) == [33, 34, 35]
    to_disk({"train": table(30), "test": splits["validation"]}, tmp_path / "unlabeled")
    assert np.bincount(read(tmp_path / "unlabeled").val.labels).tolist() == [1, 1, 1]


def test_a_single_saved_split_is_for_training(tmp_path: Path) -> None:
    table(30).save_to_disk(tmp_path / "animals")
    dataset = read(tmp_path / "animals")
    assert sorted(numbers_of(dataset.train) + numbers_of(dataset.val)) == list(range(30))


def test_a_configuration_is_named_after_a_colon(tmp_path: Path) -> None:
    for name, first in (("small", 0), ("large", 12)):
        to_parquet({"train": table(9, first), "test": table(3, first + 9)}, tmp_path / "animals" / name)
    (tmp_path / "animals" / "README.md").write_text(
        "---\nconfigs:\n- config_name: small\n  data_dir: small\n- config_name: large\n  data_dir: large\n---\n"
    )
    assert numbers_of(read(Path(f"{tmp_path / 'animals'}:large")).train) == list(range(12, 21))
    with pytest.raises(InputError, match=r"cannot be loaded: .*small.*large"):
        read(tmp_path / "animals")


def test_a_part_has_matching_images_and_labels(tmp_path: Path) -> None:
    to_disk({"train": table(30), "test": table(3, 30)}, tmp_path / "animals")
    train = read(tmp_path / "animals", train_images=9).train
    assert [number % 3 for number in numbers_of(train)] == train.labels.tolist()
    assert np.bincount(train.labels).tolist() == [3, 3, 3]


def test_images_in_separate_files_are_read(tmp_path: Path) -> None:
    for split, first, count in (("train", 0, 6), ("test", 6, 3)):
        for number in range(first, first + count):
            path = tmp_path / "photos" / split / NAMES[number % 3] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(number))
    dataset = read(tmp_path / "photos")
    assert sorted(numbers_of(dataset.train)) == list(range(6))
    assert [number % 3 for number in numbers_of(dataset.train)] == dataset.train.labels.tolist()


def test_a_gray_image_becomes_rgb(tmp_path: Path) -> None:
    gray = io.BytesIO()
    Image.fromarray(np.full((4, 4), 9, np.uint8)).save(gray, "png")
    photos = [{"bytes": gray.getvalue(), "path": None}] * 6
    to_disk({"train": table(6, photo=photos), "test": table(6)}, tmp_path / "animals")
    decoded = decode(read(tmp_path / "animals").train.files[0], CenterCrop(4), 0, 0)
    assert (decoded.shape, set(decoded.ravel().tolist())) == ((4, 4, 3), {9})


def test_content_depends_on_the_images_not_on_the_path(tmp_path: Path) -> None:
    for name, count in (("a", 30), ("b", 30), ("c", 29)):
        to_disk({"train": table(count), "test": table(3)}, tmp_path / name)
    others = [{"bytes": png(0) + bytes(number), "path": None} for number in range(30)]
    to_disk({"train": table(30, photo=others), "test": table(3)}, tmp_path / "d")
    contents = [read(tmp_path / name).content for name in "abcd"]
    assert contents[0] == contents[1]
    assert len(set(contents)) == 3, "fewer images, or other images with the same labels"


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"test": table(6)}, "has no split train, but test"),
        ({"train": table(6).remove_columns("photo")}, "no column of type Image; it has id, animal"),
        ({"train": table(6).remove_columns("animal")}, "no column of type ClassLabel; it has id, photo"),
        ({"train": table(6, animal=[0, 1, 2, -1, 1, 2])}, "train row 3 has no label"),
        (
            {"train": table(6), "test": table(3).remove_columns("id")},
            "splits train and test .* not have the same columns",
        ),
    ],
)
def test_an_invalid_dataset_is_an_error(splits: dict[str, datasets.Dataset], message: str, tmp_path: Path) -> None:
    to_disk(splits, tmp_path / "animals")
    with pytest.raises(InputError, match=message):
        read(tmp_path / "animals")


@pytest.mark.parametrize(
    ("kind", "values"), [("string", ["dog", "cat", "owl"]), ("int64", [10, 2, 30]), ("string", ["10", "2", "30"])]
)
def test_a_plain_column_has_the_labels(kind: str, values: list[Any], tmp_path: Path) -> None:
    def plain(count: int, first: int) -> datasets.Dataset:
        labels = [values[number % 3] for number in range(first, first + count)]
        split = table(count, first).remove_columns("animal")
        return split.add_column("label", labels, feature=datasets.Value(kind))

    to_disk({"train": plain(30, 0), "test": plain(6, 30)}, tmp_path / "animals")
    dataset = read(tmp_path / "animals")
    assert dataset.classes == tuple(str(value) for value in sorted(values))
    for images, first, count in ((dataset.train, 0, 30), (dataset.val, 30, 6)):
        names = [dataset.classes[label] for label in images.labels]
        assert names == [str(values[number % 3]) for number in range(first, first + count)]


def test_an_empty_split_is_an_error(tmp_path: Path) -> None:
    to_parquet({"train": table(6), "test": table(0)}, tmp_path / "animals")
    with pytest.raises(InputError, match=r"cannot be loaded: .* no data"):
        read(tmp_path / "animals")


def test_a_missing_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"dataset .*nowhere cannot be loaded: .*set data\.root to OWNER/NAME or a folder"
    ):
        read(tmp_path / "nowhere")
    with pytest.raises(InputError, match="dataset nowhere is neither a folder nor OWNER/NAME of the hub"):
        read(Path("nowhere"))


def test_a_missing_library_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'kdaug\[hub\]'"):
        read(tmp_path)
