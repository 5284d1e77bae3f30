"""Decoding: every kind of image file gives the RGB pixels that NumPy computes, or a reason why it cannot be decoded."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from PIL import Image, ImageOps, features

from kdaug.data import decode as decoding
from kdaug.data.crops import Box, CenterCrop
from kdaug.data.decode import UnreadableImage, decode, resize_image, resize_pixels

SIDE = 16
RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (SIDE, SIDE), np.uint8)
GRAY[0, :2] = 0, 255
ALPHA = RNG.integers(0, 256, (SIDE, SIDE), np.uint8)
RGB = RNG.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
PALETTE = RNG.integers(0, 256, (256, 3), np.uint8)


@dataclass(frozen=True)
class Whole:
    """A crop of the whole image, or of `part` of it."""

    size: int = SIDE
    part: Box | None = None

    def box(self, epoch: int, index: int, width: int, height: int) -> Box:
        return self.part or (0, 0, width, height)


def decoded(image: Image.Image, path: Path, crop: Any = None, **options: Any) -> NDArray[np.int64]:
    image.save(path, **options)
    pixels = decode(path, crop or Whole(), 0, 0)
    assert pixels.dtype == np.uint8
    return pixels.astype(np.int64)


def repeated(gray: NDArray[Any]) -> NDArray[Any]:
    return np.stack([gray] * 3, axis=-1)


@pytest.fixture
def png(tmp_path: Path) -> Path:
    return tmp_path / "x.png"


@pytest.fixture
def tiff(tmp_path: Path) -> Path:
    return tmp_path / "x.tiff"


def test_gray_is_repeated(png: Path) -> None:
    assert_array_equal(decoded(Image.fromarray(GRAY), png), repeated(GRAY))


def test_black_and_white_is_0_and_255(png: Path) -> None:
    assert_array_equal(decoded(Image.fromarray(GRAY > 99), png), repeated((GRAY > 99) * 255))


def test_rgb_is_kept(png: Path) -> None:
    assert_array_equal(decoded(Image.fromarray(RGB), png), RGB)


@pytest.mark.parametrize("color", [GRAY[..., None], RGB])
def test_transparency_is_dropped(color: NDArray[np.uint8], png: Path) -> None:
    image = Image.fromarray(np.concatenate([color, ALPHA[..., None]], axis=-1))
    assert image.mode in ("LA", "RGBA")
    assert_array_equal(decoded(image, png), np.broadcast_to(color, RGB.shape))


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(256))])
def test_palette_images_become_rgb(transparency: int | bytes | None, png: Path) -> None:
    image = Image.fromarray(GRAY).convert("P")
    image.putpalette(PALETTE.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    assert_array_equal(decoded(image, png, **options), PALETTE[GRAY])


def test_16_bit_gray_keeps_its_high_byte(png: Path) -> None:
    deep = GRAY.astype(np.uint16) * 256 + ALPHA
    assert_array_equal(decoded(Image.fromarray(deep), png), repeated(GRAY))


def test_32_bit_gray_is_clipped_to_16_bit(tiff: Path) -> None:
    deep = GRAY.astype(np.int32) * 256 + ALPHA
    deep[1, :3] = -1, 1 << 16, 1 << 30
    expected = GRAY.copy()
    expected[1, :3] = 0, 255, 255
    assert_array_equal(decoded(Image.fromarray(deep), tiff), repeated(expected))


def test_float_gray_is_clipped_to_0_to_255(tiff: Path) -> None:
    values = GRAY.astype(np.float32) + 0.25
    values[1, :3] = -7, 1e6, np.nan
    expected = GRAY.copy()
    expected[1, :3] = 0, 255, 0
    assert_array_equal(decoded(Image.fromarray(values), tiff), repeated(expected))


def test_heic_is_read_with_pillow_heif(tmp_path: Path) -> None:
    pillow_heif.register_heif_opener()
    smooth = Image.fromarray(RGB).resize((64, 64), Image.Resampling.BICUBIC)
    pixels = decoded(smooth, tmp_path / "x.heic", Whole(64), quality=100, chroma=444)
    assert_allclose(pixels, np.asarray(smooth), atol=8)
    assert abs(pixels - np.asarray(smooth)).mean() < 1


def test_cmyk_is_ink_on_white(tiff: Path) -> None:
    inks = np.concatenate([RGB, ALPHA[..., None]], axis=-1)
    image = Image.fromarray(inks, mode="CMYK")
    paper = (255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255
    assert_allclose(decoded(image, tiff), paper, atol=1)


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
@pytest.mark.parametrize("color", [(200, 60, 20), (10, 90, 240)])
def test_jpeg_keeps_a_plain_color(mode: str, color: tuple[int, ...], tmp_path: Path) -> None:
    image = Image.new("RGB", (SIDE, SIDE), color).convert(mode)
    expected = color if mode != "L" else np.dot(color, (0.299, 0.587, 0.114))
    assert_allclose(decoded(image, tmp_path / "x.jpg", quality=95), np.broadcast_to(expected, RGB.shape), atol=4)


# EXIF 2.32, tag 0x0112: from the stored image to the upright one.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


def tagged(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("ending", ["jpg", "png", "tiff", "webp"])
def test_the_exif_orientation_is_applied(orientation: int, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{ending}"
    plain = decoded(Image.fromarray(RGB), path)
    assert_array_equal(decoded(Image.fromarray(RGB), path, exif=tagged(orientation)), UPRIGHT[orientation](plain))


@pytest.mark.parametrize("ending", ["jpg", "png", "tiff", "webp"])
def test_the_crop_gets_the_upright_size(ending: str, tmp_path: Path) -> None:
    calls = []

    class RecordingCrop(Whole):
        def box(self, epoch: int, index: int, width: int, height: int) -> Box:
            calls.append((epoch, index, width, height))
            return 0, 0, width, height

    Image.new("RGB", (30, 20)).save(tmp_path / f"x.{ending}", exif=tagged(6))
    assert decode(tmp_path / f"x.{ending}", RecordingCrop(8), 5, 7).shape == (8, 8, 3)
    assert calls == [(5, 7, 20, 30)]


def bicubic(values: NDArray[np.float64], start: float, stop: float, size: int) -> NDArray[np.float64]:
    """Keys' cubic filter (a = -1/2), widened for downsampling, over [start, stop) of the first axis."""
    scale = (stop - start) / size
    centers = start + (np.arange(size) + 0.5) * scale
    x = np.abs(np.arange(len(values)) + 0.5 - centers[:, None]) / max(scale, 1.0)
    weights = np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0))
    return np.tensordot(weights / weights.sum(1, keepdims=True), values, 1)


@pytest.mark.parametrize("box", [(0, 0, 40, 30), (3, 5, 27, 29), (2.5, 1.25, 37.5, 28.75), (10, 10, 15, 16)])
def test_the_box_is_resized_bicubically(box: Box, png: Path) -> None:
    image = Image.fromarray(RNG.integers(0, 256, (30, 40, 3), np.uint8))
    pixels = decoded(image, png, Whole(12, box))
    assert_array_equal(pixels, np.asarray(image.resize((12, 12), Image.Resampling.BICUBIC, box=box)))
    left, top, right, bottom = box
    across = bicubic(np.asarray(image, np.float64).swapaxes(0, 1), left, right, 12).round().clip(0, 255)
    assert_allclose(pixels, bicubic(across.swapaxes(0, 1), top, bottom, 12).clip(0, 255), atol=1)


def test_a_center_crop_is_the_middle_of_the_image(png: Path) -> None:
    image = RNG.integers(0, 256, (256, 320, 3), np.uint8)
    assert_array_equal(decoded(Image.fromarray(image), png, CenterCrop(224)), image[16:240, 48:272])


@cache
def photograph(width: int, height: int) -> Image.Image:
    """Noise of all scales; coarse noise is stronger, as in photographs."""
    layers = np.zeros((height, width, 3))
    for octave in range(1, 9):
        grain = Image.fromarray(RNG.integers(0, 256, (2**octave, 2**octave, 3), np.uint8))
        layers += np.asarray(grain.resize((width, height), Image.Resampling.BICUBIC), float) / 1.6**octave
    layers -= layers.min()
    return Image.fromarray((layers * 255 / layers.max()).astype(np.uint8))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    ("shape", "reduction"), [((700, 500), 1), ((1200, 901), 2), ((1803, 1100), 4), ((3000, 2201), 8)]
)
def test_a_reduced_jpeg_differs_by_about_1_of_255(
    shape: tuple[int, int], reduction: int, mode: str, orientation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photograph(*shape).convert(mode).save(tmp_path / "x.jpg", quality=90, exif=tagged(orientation))
    loaded = []
    resize = decoding.resize_bicubic
    monkeypatch.setattr(
        decoding, "resize_bicubic", lambda pixels, *rest: loaded.append(pixels) or resize(pixels, *rest)
    )
    small = decode(tmp_path / "x.jpg", CenterCrop(112), 0, 0)
    monkeypatch.setattr(decoding, "_reduce_jpeg", lambda *_: None)
    whole = decode(tmp_path / "x.jpg", CenterCrop(112), 0, 0)
    assert max(loaded[1].shape) == max(shape)
    assert max(loaded[0].shape) == -(-max(shape) // reduction)
    difference = np.abs(small.astype(int) - whole)
    if reduction == 1:
        assert difference.max() == 0
    assert difference.mean() < 1
    assert difference.max() < 12


def assert_unreadable(path: Path) -> None:
    with pytest.raises(UnreadableImage) as error:
        decode(path, CenterCrop(8), 0, 0)
    reason = str(error.value)
    assert reason
    assert "\n" not in reason
    assert str(path) not in reason


@pytest.mark.parametrize(
    "content",
    [b"", b"this is no image\n", b"\xff\xd8\xff\xe0", b"P5 100000 100000 255\n" + bytes(100)],
    ids=["empty", "text", "header only", "decompression bomb"],
)
def test_files_that_are_no_images_are_unreadable(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    assert_unreadable(tmp_path / "x.jpg")


def test_a_missing_file_and_a_folder_are_unreadable(tmp_path: Path) -> None:
    assert_unreadable(tmp_path / "gone.jpg")
    assert_unreadable(tmp_path)


FORMATS = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM"] + [f for f in ("WEBP", "AVIF") if features.check(f.lower())]


def written(image_format: str) -> bytes:
    file = io.BytesIO()
    options = {"exif": tagged(6)} if image_format in ("JPEG", "PNG", "WEBP") else {}
    Image.fromarray(RGB).save(file, image_format, **options)
    return file.getvalue()


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_truncated_file_is_unreadable(image_format: str, tmp_path: Path) -> None:
    content, path = written(image_format), tmp_path / "x"
    path.write_bytes(content)
    decode(path, CenterCrop(8), 0, 0)
    for length in range(0, len(content) * 3 // 4, max(1, len(content) // 40)):
        path.write_bytes(content[:length])
        assert_unreadable(path)


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_damaged_file_is_an_image_or_unreadable(image_format: str, tmp_path: Path) -> None:
    content, path = np.frombuffer(written(image_format), np.uint8), tmp_path / "x"
    rng, reasons = np.random.default_rng(0), []
    for _ in range(100):
        changed = content.copy()
        changed[rng.integers(0, min(len(content), 300), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(changed.tobytes())
        try:
            assert decode(path, CenterCrop(8), 0, 0).shape == (8, 8, 3)
        except UnreadableImage as error:
            reasons.append(str(error))
    assert all(reasons)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_opened_image_is_resized_as_its_file(tmp_path: Path, suffix: str, orientation: int) -> None:
    """None of these JPEGs is large enough to be decoded at a fraction of its size."""
    image, crop = Image.fromarray(RGB).resize((50, 34), Image.Resampling.BICUBIC), CenterCrop(SIDE)
    exif = image.getexif()
    exif[0x112] = orientation
    path = tmp_path / f"x.{suffix}"
    image.save(path, exif=exif)
    expected = decode(path, crop, 0, 0)
    with Image.open(path) as opened:
        assert_array_equal(resize_image(opened, crop), expected)
        upright = ImageOps.exif_transpose(opened)
    assert_array_equal(resize_image(upright, crop), expected)
    assert_array_equal(resize_pixels(np.asarray(upright), crop), expected)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16", "F"])
def test_an_image_in_memory_may_have_any_mode(mode: str) -> None:
    image = Image.fromarray(RGB).convert("L" if mode == "I;16" else mode).convert(mode)
    assert resize_image(image, CenterCrop(8)).shape == (8, 8, 3)


def test_an_opened_image_that_is_damaged_is_unreadable(png: Path) -> None:
    Image.fromarray(RGB).save(png)
    png.write_bytes(png.read_bytes()[:-50])
    with Image.open(png) as opened, pytest.raises(UnreadableImage, match="truncated"):
        resize_image(opened, CenterCrop(8))
