"""JPEG files: the pixels are those of Pillow, whichever library decodes them."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image

from kdaug.data import jpeg
from kdaug.data.crops import RandomResizedCrop
from kdaug.data.decode import UnreadableImage, decode

Pixels = NDArray[np.uint8]


def scene(width: int, height: int) -> Pixels:
    """Coarse and fine noise."""
    rng = np.random.default_rng(width * height)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 7, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return np.asarray(Image.blend(coarse, Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)), 0.2))


def by_pillow(mode: str = "RGB", **options: object) -> Callable[[Pixels], bytes]:
    def encode(pixels: Pixels) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(file, "JPEG", **options)
        return file.getvalue()

    return encode


def by_simplejpeg(sampling: str) -> Callable[[Pixels], bytes]:
    return lambda pixels: simplejpeg.encode_jpeg(pixels, 85, colorsubsampling=sampling)


def with_adobe_transform(transform: int) -> Callable[[Pixels], bytes]:
    """With an Adobe marker in place of the JFIF marker, which would overrule it."""

    def encode(pixels: Pixels) -> bytes:
        content = by_pillow()(pixels)
        assert content[2:4] == b"\xff\xe0"
        after = 4 + int.from_bytes(content[4:6])
        return content[:2] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform]) + content[after:]

    return encode


def without_last_scans(pixels: Pixels) -> bytes:
    content = by_pillow(progressive=True)(pixels)
    scans = [position for position in range(len(content)) if content[position : position + 2] == b"\xff\xda"]
    return content[: scans[3]] + b"\xff\xd9"


FAST = {
    **{f"sampling {name}": by_simplejpeg(name) for name in ("444", "422", "420", "440", "411")},
    **{f"progressive {name}": by_pillow(subsampling=name, progressive=True) for name in ("4:4:4", "4:2:2", "4:2:0")},
    "gray": by_pillow("L"),
    "progressive gray": by_pillow("L", progressive=True),
    "restart markers": by_pillow(restart_marker_blocks=3),
    "optimized tables": by_pillow(optimize=True, quality=30),
    "Adobe YCbCr": with_adobe_transform(1),
    "last scans missing": without_last_scans,
}
SLOW = {
    "CMYK": by_pillow("CMYK"),
    "RGB": by_pillow(keep_rgb=True),
    "Adobe RGB": with_adobe_transform(0),
    "Adobe YCCK for 3 colors": with_adobe_transform(2),
    "junk after the pixels": lambda pixels: by_pillow()(pixels)[:-2] + b"junk\xff\xd9",
}
KINDS = FAST | SLOW


def pillow_view(content: bytes, crop: RandomResizedCrop, index: int) -> Pixels:
    """The view of a training image, by Pillow alone; a JPEG is reduced while two pixels per output pixel remain."""
    with Image.open(io.BytesIO(content)) as file:
        width, height = file.size
        box = crop.box(0, index, width, height)
        shorter = min(box[2] - box[0], box[3] - box[1])
        if shorter >= 4 * crop.size:
            scale = 2 * crop.size / shorter
            file.draft(None, (math.ceil(width * scale), math.ceil(height * scale)))
        reduction = round(width / file.width)
        image = file.convert("RGB")
    part = tuple(edge / reduction for edge in box)
    return np.asarray(image.resize((crop.size, crop.size), Image.Resampling.BICUBIC, box=part))


class File:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def read_bytes(self) -> bytes:
        return self.content


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(64, 48), (131, 97), (40, 203), (9, 8), (7, 5), (1, 1)])
def test_views_are_those_of_pillow(kind: str, shape: tuple[int, int]) -> None:
    content = KINDS[kind](scene(*shape))
    for size in (2, 4, 8, 16, 48):  # from reduction by 8 to enlargement
        crop = RandomResizedCrop(size, seed=1, min_area=0.3)
        for index in range(3):
            assert_array_equal(decode(File(content), crop, 0, index), pillow_view(content, crop, index))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_simplejpeg_decodes_the_usual_kinds(kind: str, scale: int) -> None:
    content = KINDS[kind](scene(131, 97))
    with Image.open(io.BytesIO(content)) as file:
        if scale > 1:
            file.draft(None, (131 // scale, 97 // scale))
        image = jpeg.decode_jpeg(file, content)
        assert (image is not None) == (kind in FAST)
        if image is not None:
            assert_array_equal(np.asarray(image), np.asarray(file))


@pytest.mark.parametrize("marker", [0xC1, 0xC9, 0xCA])
def test_other_coding_processes_are_left_to_pillow(marker: int) -> None:
    """Extended and arithmetic coding: neither library writes a file to check them with."""
    content = by_pillow()(scene(64, 48)).replace(b"\xff\xc0", bytes((0xFF, marker)), 1)
    with Image.open(io.BytesIO(content)) as file:
        assert jpeg.decode_jpeg(file, content) is None


def test_a_library_with_other_pixels_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    original = simplejpeg.decode_jpeg

    def differs(*args: object, **options: object) -> Pixels:
        pixels = original(*args, **options)
        pixels[-1, -1, 0] ^= 1
        return pixels

    assert jpeg._equals_pillow.__wrapped__("420", False)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", differs)
    for sampling in jpeg._SAMPLINGS.values():
        assert not jpeg._equals_pillow.__wrapped__(sampling, False)
        assert not jpeg._equals_pillow.__wrapped__(sampling, True)


def outcome(view: Callable[[], Pixels]) -> tuple[bytes, bool]:
    try:
        return view().tobytes(), True
    except Exception:
        return b"", False


@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), data=st.data())
def test_damaged_files_decode_as_with_pillow(kind: str, data: st.DataObject) -> None:
    content = bytearray(KINDS[kind](scene(64, 48)))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(2, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(2, len(content)) | st.just(len(content)))]
    crop = RandomResizedCrop(data.draw(st.sampled_from([4, 32])), seed=0, min_area=1)
    expected = outcome(lambda: pillow_view(bytes(content), crop, 0))
    assert outcome(lambda: decode(File(bytes(content)), crop, 0, 0)) == expected


def with_exif(exif: bytes) -> bytes:
    content = by_pillow()(scene(24, 16))
    segment = b"Exif\0\0" + exif
    return content[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2) + segment + content[2:]


def exif_bytes(entries: list[bytes], order: str) -> bytes:
    head = b"II*\0\x08\0\0\0" if order == "little" else b"MM\0*\0\0\0\x08"
    return head + len(entries).to_bytes(2, order) + b"".join(entries)


ODD_EXIF = st.binary(max_size=80) | st.builds(
    exif_bytes,
    st.lists(
        st.binary(min_size=12, max_size=12) | st.builds(lambda rest: b"\x01\x12\0\x03" + rest, st.binary(max_size=8))
    ),
    st.sampled_from(["little", "big"]),
)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=400, deadline=None)
@given(exif=ODD_EXIF)
def test_odd_exif_never_costs_an_image(exif: bytes) -> None:
    class Whole:
        size = 16

        def box(self, epoch: int, index: int, width: int, height: int) -> tuple[int, int, int, int]:
            return 0, 0, width, height

    content = with_exif(exif)
    with Image.open(io.BytesIO(content)) as file:
        plain = file.convert("RGB")
    allowed = [plain, *(plain.transpose(method) for method in Image.Transpose)]
    expected = {image.resize((16, 16), Image.Resampling.BICUBIC).tobytes() for image in allowed}
    assert decode(File(content), Whole(), 0, 0).tobytes() in expected  # type: ignore[arg-type]


def test_an_unreadable_exif_block_leaves_the_image_as_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Image.Image) -> Image.Exif:
        raise OverflowError("damaged")

    by_itself, crop = with_exif(b""), RandomResizedCrop(8, 0, 1)
    expected = decode(File(by_itself), crop, 0, 0)
    monkeypatch.setattr(Image.Image, "getexif", fail)
    assert_array_equal(decode(File(by_pillow()(scene(24, 16))), crop, 0, 0), expected)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_jpeg_is_unreadable(share: float) -> None:
    content = by_pillow()(scene(64, 48))
    with pytest.raises(UnreadableImage, match="truncated"):
        decode(File(content[: int(len(content) * share)]), RandomResizedCrop(8, 0, 1), 0, 0)
