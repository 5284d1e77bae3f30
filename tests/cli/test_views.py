"""kdaug views: the list, the ops of a policy, the contact sheet, and errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from kdaug.cli.main import main
from kdaug.views.contact_sheet import read_image
from kdaug.views.policies.spec import SPEC_DESCRIPTIONS
from kdaug.views.space_tables import SPACES


def test_the_list_names_every_policy_and_space(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["views"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in [*SPEC_DESCRIPTIONS, *SPACES]:
        assert any(line.split()[:1] == [name] for line in lines), name
    assert max(map(len, lines)) <= 120


def test_show_prints_arguments_and_writes_a_contact_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sheet.png"
    assert main(["views", "show", "randaugment-n2-m9@tf-efficientnet", "--out", str(out)]) == 0
    result = capsys.readouterr().out
    assert "± 27°" in result
    assert "fill 128, 128, 128, nearest" in result
    assert f"contact sheet written to {out}" in result
    with Image.open(out) as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 8 * 112
        assert sheet.height > 16 * 112


def test_show_resizes_the_users_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo, out = tmp_path / "photo.png", tmp_path / "sheet.png"
    Image.fromarray(np.full((30, 60, 4), 200, np.uint8)).save(photo)
    args = ["views", "show", "paper-geometric", "--image", str(photo), "--size", "40", "--out", str(out)]
    assert main(args) == 0
    assert "on 40 x 40 pixels" in capsys.readouterr().out
    assert out.exists()


def test_image_orientation_and_16_bits_are_read(tmp_path: Path) -> None:
    left_dark = np.repeat(np.array([[0x10FF, 0xA0FF]], np.uint16), 8, 1).repeat(16, 0)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3  # upside down
    Image.fromarray(left_dark).save(tmp_path / "photo.png", exif=exif)
    image = read_image(tmp_path / "photo.png", 16)
    assert (image[:, 2], image[:, 13]) == pytest.approx((0xA0, 0x10))


def test_show_lists_five_sub_policies_or_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["views", "show", "autoaugment-cifar10", "--out", str(tmp_path / "a.png")]
    assert main(args) == 0
    result = capsys.readouterr().out
    assert "25 sub-policies:" in result
    assert "rotate 2 (70%), then translate-x 9 (30%)" in result
    assert "--all prints the rest" in result
    assert main([*args, "--all"]) == 0
    assert " 25  " in capsys.readouterr().out


def test_a_policy_without_levels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["views", "show", "flip", "--out", str(tmp_path / "a.png")]) == 0
    assert "flip has no ops with levels" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (["shw"], "has no arguments 'shw'"),
        (["show", "autoaugment-cifr10"], "no policy 'autoaugment-cifr10'; did you mean autoaugment-cifar10?"),
        (["show", "timm", "--image", "nothing.png"], "image nothing.png: cannot be read"),
        (["show", "timm", "--size", "0"], "--size is 0, but must be from 1 to 1024"),
        (["show", "timm", "--out", "no/such/folder/a.png"], "no/such/folder/a.png: cannot be written"),
        (["show", "file:nothing.yaml"], "policy file nothing.yaml: cannot be read"),
    ],
)
def test_bad_input_is_one_line(args: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["views", *args]) == 2
    result = capsys.readouterr().err
    assert result.startswith("kdaug: ")
    assert problem in result
    assert result.count("\n") == 1
