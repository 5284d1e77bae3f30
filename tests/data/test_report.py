"""The report on a dataset of image files: classes, copies, unreadable files."""

from __future__ import annotations

import csv
import json
import os
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.copies import BAD_NAME, CLASSES, picture, write_folder_with_copies, write_shard
from support.images import write_noise

from kdaug import InputError
from kdaug.config import Data
from kdaug.data import duplicates
from kdaug.data.datasets import load_bundled, load_omniglot, read_dataset
from kdaug.data.duplicates import find_copies
from kdaug.data.fingerprints import Fingerprints, difference_hash, fingerprint_images
from kdaug.data.images import Dataset, EncodedImages
from kdaug.data.report import DataReport, make_report, write_report

Findings = dict[str, tuple[str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Findings]:
    """A folder with known copies, and its findings; read only."""
    root = tmp_path_factory.mktemp("photos") / "photos"
    return root, write_folder_with_copies(root)


@pytest.fixture(scope="module")
def report(folder: tuple[Path, Findings]) -> DataReport:
    return make_report(read(folder[0]))


def read(root: Path, name: str = "folder") -> Dataset:
    return read_dataset(Data(name=name, root=str(root)), 0.1)  # type: ignore[arg-type]


def test_all_copies_and_no_others_are_found(folder: tuple[Path, Findings], report: DataReport) -> None:
    root, expected = folder
    found = {each.path: (each.problem, each.other) for each in report.copies}
    found |= {path: ("unreadable", "") for path, _ in report.unreadable}
    assert {
        str(Path(path).relative_to(root)): (problem, other and str(Path(other).relative_to(root)))
        for path, (problem, other) in found.items()
    } == expected
    exact = {Path(each.path).name for each in report.copies if each.exact}
    assert exact == {"copy of 0.jpg", BAD_NAME, "leak.jpg"}
    assert [each.problem for each in report.copies] == ["leak", "conflict", "leak and conflict", "copy", "copy"]


def test_the_sizes_of_the_classes_are_counted(report: DataReport) -> None:
    assert [(each.name, each.train, each.val) for each in report.classes] == [(CLASSES[0], 11, 3), (CLASSES[1], 7, 3)]
    assert report.imbalance == 11 / 7
    assert (report.single, report.not_validated) == ([], [])


def test_the_files_list_every_finding(folder: tuple[Path, Findings], report: DataReport, tmp_path: Path) -> None:
    root, expected = folder
    write_report(report, tmp_path)
    text = (tmp_path / "data-report.csv").read_bytes().decode("utf-8", "surrogateescape")
    rows = list(csv.DictReader(text.splitlines()))
    assert {os.path.relpath(row["path"], root): row["problem"] for row in rows} == {
        path: problem for path, (problem, _) in expected.items()
    }
    assert {row["detail"] for row in rows if row["other"]} == {"equal bytes", "similar"}
    assert all(row["detail"] for row in rows)
    content = json.loads((tmp_path / "data-report.json").read_bytes())
    assert content == report.as_dict()
    assert len(content["copies"]) + len(content["unreadable"]) == len(rows) == report.findings == 7


def test_the_summary_has_a_line_for_each_kind_of_finding(report: DataReport) -> None:
    lines = report.summary()
    assert len(lines) == 6
    for line, start in zip(
        lines,
        (
            f"2 classes with 7 ({CLASSES[1]}) to 11 ({CLASSES[0]}) training images, imbalance 1.6",
            "2 unreadable file(s), such as ",
            "1 image(s) in training and validation (1 with equal bytes, 0 similar), such as ",
            "1 image(s) in two classes (1 with equal bytes, 0 similar), such as ",
            "1 image(s) in training and validation, and in two classes (0 with equal bytes, 1 similar), such as ",
            "2 image(s) twice in one class and split (1 with equal bytes, 1 similar), such as ",
        ),
        strict=True,
    ):
        assert line.startswith(start)
        assert "\udcff" not in line


def test_shards_have_the_findings_of_the_folder(folder: tuple[Path, Findings], tmp_path: Path) -> None:
    write_shard(folder[0], tmp_path / "shards")
    found = make_report(read(tmp_path / "shards", "shards"))
    expected = sorted(problem for problem, _ in folder[1].values())
    assert sorted([each.problem for each in found.copies] + ["unreadable"] * len(found.unreadable)) == expected
    assert all(".tar:" in each.path for each in found.copies)


def test_small_classes_are_named(tmp_path: Path) -> None:
    write_noise(tmp_path / "train", {"a": 12, "b": 1, "c": 1}, size=(80, 80))
    write_noise(tmp_path / "val", {"a": 2, "c": 1}, size=(80, 80))
    (tmp_path / "val" / "b").mkdir()
    lines = make_report(read(tmp_path)).summary()
    assert "12 (a) training images, imbalance 12.0" in lines[0]
    assert lines[1:3] == ["2 class(es) with one training image: b, c", "1 class(es) without validation images: b"]


def test_images_in_memory_are_refused() -> None:
    with pytest.raises(InputError, match="the images of bundled are not files"):
        make_report(load_bundled())


def test_an_image_is_paired_with_the_first_one_and_the_first_of_another_class(tmp_path: Path) -> None:
    """Five encodings of a picture: classes 0 0 1 1 0, of which the last one is a validation image."""
    folder = tmp_path / "photos"
    for path, quality in (("train/a/1", 90), ("train/a/2", 80), ("train/b/1", 70), ("train/b/2", 60), ("val/a/1", 50)):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        picture(0).save(f"{folder / path}.jpg", quality=quality)
    (folder / "val/b").mkdir()
    found = {
        (str(Path(each.path).relative_to(folder)), str(Path(each.other).relative_to(folder)), each.problem)
        for each in make_report(read(folder)).copies
    }
    assert found == {
        ("train/a/2.jpg", "train/a/1.jpg", "copy"),
        ("train/b/1.jpg", "train/a/1.jpg", "conflict"),
        ("train/b/2.jpg", "train/a/1.jpg", "conflict"),
        ("val/a/1.jpg", "train/a/1.jpg", "leak"),
        ("val/a/1.jpg", "train/b/1.jpg", "leak and conflict"),
    }


def test_the_difference_hash_is_that_of_the_definition() -> None:
    """Compared with a loop over the 9 x 8 means."""
    pixels = np.random.default_rng(1).integers(0, 256, (72, 72, 3), dtype=np.uint8)
    bits = ""
    for row in range(8):
        means = [pixels[9 * row : 9 * row + 9, 8 * column : 8 * column + 8].mean() for column in range(9)]
        bits += "".join("1" if left < right else "0" for left, right in pairwise(means))
    assert difference_hash(pixels) == int(bits, 2)


def test_all_pairs_of_many_images_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop over all pairs finds the same, with tiles that end in the middle of the images."""
    monkeypatch.setattr(duplicates, "_TILE", 16)
    random = np.random.default_rng(2)
    originals = random.integers(0, 256, (30, 432), dtype=np.uint8)
    thumbnails = originals[random.integers(0, 30, 150)]
    hashes = np.array([int.from_bytes(row[:8].tobytes()) for row in thumbnails], np.uint64)
    hashes ^= np.uint64(1) << random.integers(0, 64, 150).astype(np.uint64)  # up to two bits differ
    labels = random.integers(0, 3, 150)
    prints = Fingerprints(np.arange(150).astype("V16"), hashes, thumbnails, {7: "damaged"})
    expected = set()
    for row in range(150):
        same = [i for i in range(row) if 7 not in (i, row) and (thumbnails[i] == thumbnails[row]).all()]
        other = [i for i in same if labels[i] != labels[row]]
        expected |= {(row, each[0]) for each in (same, other) if each}
    copies = find_copies(prints, labels)
    assert set(zip(copies.row.tolist(), copies.original.tolist(), strict=True)) == expected
    assert len(copies.row) == len(expected) > 100
    assert not copies.exact.any()
    assert len(find_copies(prints, labels, compared=149).row) == 0


def test_different_drawings_of_a_character_are_not_copies(tmp_path: Path) -> None:
    """Hard negatives: thin black lines on white, ten drawings of each of thirty characters."""
    images = load_omniglot().train
    for row in range(300):
        path = tmp_path / str(images.labels[row]) / f"{row}.png"  # type: ignore[union-attr]
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(images.images[row, ..., 0]).save(path)  # type: ignore[union-attr]
    assert make_report(read(tmp_path)).copies == ()


def test_reading_can_be_stopped(folder: tuple[Path, Findings]) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int) -> None:
        raise Stopped

    train = read(folder[0]).train
    assert isinstance(train, EncodedImages)
    with pytest.raises(Stopped):
        fingerprint_images(train, stop)


def test_a_file_that_vanishes_is_unreadable(folder: tuple[Path, Findings], tmp_path: Path) -> None:
    root = shutil.copytree(folder[0], tmp_path / "photos")
    dataset = read(root)
    (root / "val" / CLASSES[0] / "0.jpg").unlink()
    found = make_report(dataset)
    assert (str(root / "val" / CLASSES[0] / "0.jpg"), "No such file or directory") in found.unreadable
