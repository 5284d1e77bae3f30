"""Gray images that use another range than their mode: the range is recognized, with one warning per ending and mode."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image

from kdaug.data import decode as decoding
from kdaug.data.crops import CenterCrop
from kdaug.data.decode import as_rgb, decode, log_range_notes, take_range_notes
from kdaug.data.folder_index import FilePaths
from kdaug.data.images import EncodedImages
from kdaug.data.loader import UnreadableImages, evaluation_keys, load

GRAY = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
GRAY[0, :3] = 0, 1, 255


@pytest.fixture(autouse=True)
def forget_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_notes", {})
    monkeypatch.setattr(decoding, "_noted", set())
    monkeypatch.setattr(decoding, "_logged", set())


def gray_of(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    rgb = np.asarray(as_rgb(Image.fromarray(values)))
    assert_array_equal(rgb, np.repeat(rgb[..., :1], 3, axis=2))
    return rgb[..., 0]


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_integers_up_to_255_are_kept(dtype: type) -> None:
    assert_array_equal(gray_of(GRAY.astype(dtype)), GRAY)
    above = GRAY.astype(dtype)
    above[5, 5] = 256
    assert_array_equal(gray_of(above), above >> 8)


def test_negative_integers_become_0() -> None:
    values = GRAY.astype(np.int32)
    values[5, 5] = -3
    assert_array_equal(gray_of(values), np.maximum(values, 0))


def test_floats_up_to_1_are_multiplied_by_255() -> None:
    values = GRAY.astype(np.float32) / 255
    values[5, 5] = np.nan
    expected = GRAY.copy()
    expected[5, 5] = 0
    assert_array_equal(gray_of(values), expected)


@pytest.mark.parametrize("outlier", [1.5, -0.5])
def test_floats_beyond_0_to_1_are_in_0_to_255(outlier: float) -> None:
    values = GRAY.astype(np.float32) / 255
    values[5, 5] = outlier
    assert_array_equal(gray_of(values), np.maximum(values, 0).astype(np.uint8))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_black_images_stay_black_and_are_not_noted(dtype: type, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((16, 16), dtype)).save(tmp_path / "x.tiff")
    assert not decode(tmp_path / "x.tiff", CenterCrop(8), 0, 0).any()
    assert take_range_notes() == {}


def test_each_ending_and_mode_is_noted_once(tmp_path: Path) -> None:
    for name, values in {"a.tif": GRAY / np.float32(255), "b.TIF": GRAY.astype(np.int32), "c.tif": GRAY}.items():
        Image.fromarray(values).save(tmp_path / name, "TIFF")
        decode(tmp_path / name, CenterCrop(8), 0, 0)
    Image.fromarray(GRAY.astype(np.uint16)).save(tmp_path / "d.png")
    decode(tmp_path / "d.png", CenterCrop(8), 0, 0)
    notes = take_range_notes()
    assert set(notes) == {(".tif", "F"), (".tif", "I"), (".png", "I;16")}
    assert "0..1" in notes[".tif", "F"]
    assert "0..255" in notes[".png", "I;16"]
    decode(tmp_path / "d.png", CenterCrop(8), 0, 0)
    assert take_range_notes() == {}


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_warns_once(workers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(8):
        Image.fromarray(GRAY.astype(np.uint16)).save(tmp_path / f"{number}.png")
    paths = FilePaths.from_bytes(tmp_path, b"\0".join(b"%d.png" % number for number in range(8)), 8)
    images = EncodedImages(paths, np.zeros(8, np.int64))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            list(load(images, evaluation_keys(8, 2), CenterCrop(8), workers, UnreadableImages(8, 0.0)))
    (record,) = caplog.records
    assert record.getMessage().startswith(".png images of mode I;16 ")
    log_range_notes({(".png", "I;16"): "again"})
    assert len(caplog.records) == 1
