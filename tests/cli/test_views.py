"""kdaug views: lists, explains, draws; what cannot be is one line and exit code 2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from kdaug.cli.main import main
from kdaug.views.contact_sheet import read_image
from kdaug.views.policies.spec import KNOWN
from kdaug.views.spaces import SPACES


def test_the_list_names_every_policy_and_space(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["views"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in [*KNOWN, *SPACES]:
        assert any(line.split()[:1] == [name] for line in lines), name
    assert max(map(len, lines)) <= 120


def test_show_prints_what_the_magnitude_does_and_draws_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sheet.png"
    assert main(["views", "show", "randaugment-n2-m9@tf-efficientnet", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "± 27°" in told
    assert "fill 128, 128, 128, nearest" in told
    assert f"the picture is in {out}" in told
    with Image.open(out) as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 8 * 112
        assert sheet.height > 16 * 112


def test_show_takes_the_users_image_at_a_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo, out = tmp_path / "photo.png", tmp_path / "sheet.png"
    Image.fromarray(np.full((30, 60, 4), 200, np.uint8)).save(photo)
    given = ["views", "show", "paper-geometric", "--image", str(photo), "--size", "40", "--out", str(out)]
    assert main(given) == 0
    assert "on 40 x 40 pixels" in capsys.readouterr().out
    assert out.exists()


def test_the_users_image_is_turned_upright_and_its_16_bits_are_kept(tmp_path: Path) -> None:
    left_dark = np.repeat(np.array([[0x10FF, 0xA0FF]], np.uint16), 8, 1).repeat(16, 0)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3  # upside down
    Image.fromarray(left_dark).save(tmp_path / "photo.png", exif=exif)
    seen = read_image(tmp_path / "photo.png", 16)
    assert (seen[:, 2], seen[:, 13]) == pytest.approx((0xA0, 0x10))


def test_show_lists_sub_policies_all_on_demand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["views", "show", "autoaugment-cifar10", "--out", str(tmp_path / "a.png")]
    assert main(given) == 0
    told = capsys.readouterr().out
    assert "25 sub-policies:" in told
    assert "rotate 2 (70%), then translate-x 9 (30%)" in told
    assert "--all shows the rest" in told
    assert main([*given, "--all"]) == 0
    assert " 25  " in capsys.readouterr().out


def test_a_policy_without_levels_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["views", "show", "flip", "--out", str(tmp_path / "a.png")]) == 0
    assert "flip reads no levels" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["shw"], "does not understand 'shw'"),
        (["show", "autoaugment-cifr10"], "no policy 'autoaugment-cifr10'; did you mean autoaugment-cifar10?"),
        (["show", "timm", "--image", "nothing.png"], "image nothing.png: cannot be read"),
        (["show", "timm", "--size", "0"], "--size is 0, but must be from 1 to 1024"),
        (["show", "timm", "--out", "no/such/folder/a.png"], "no/such/folder/a.png: cannot be written"),
        (["show", "file:nothing.yaml"], "policy file nothing.yaml: cannot be read"),
    ],
)
def test_bad_input_is_one_line(given: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["views", *given]) == 2
    told = capsys.readouterr().err
    assert told.startswith("kdaug: ")
    assert sentence in told
    assert told.count("\n") == 1
