"""benchmarks/decode.py, folder_index.py and reproduce_smoke.py: short runs."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "own" / "photos"
    folder.mkdir(parents=True)
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    return folder


def test_decode_measures_every_contender(run_script: Callable[..., Any], photos: Path, tmp_path: Path) -> None:
    written = tmp_path / "decode.json"
    output = run_script("decode", "--photos", photos, "--rounds", "2", "--json", written)
    assert output.exit == 0, output.stderr
    speeds = json.loads(written.read_text())["photos_per_second"]["yours"]
    assert set(speeds) == {"kdaug", "kdaug, from shards", "timm", "torchvision"}
    assert all(len(rounds) == 2 and min(rounds) > 0 for rounds in speeds.values())
    assert all(name in output.stdout for name in speeds)


def test_decode_contenders_return_crops_of_224_pixels(
    load_script: Callable[[str], ModuleType], photos: Path, tmp_path: Path
) -> None:
    contenders = load_script("decode").make_contenders(sorted(photos.iterdir()), tmp_path)
    for contender in contenders.values():
        assert np.asarray(contender(1)).shape == (224, 224, 3)
    assert np.array_equal(contenders["kdaug"](1), contenders["kdaug, from shards"](1))


def test_decode_writes_photos_of_the_given_size(load_script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    (path,) = load_script("decode").write_photos(tmp_path, 30, 20, 1)
    with Image.open(path) as photo:
        assert photo.size == (30, 20)


@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_folder_index_opens_every_image(
    run_script: Callable[..., Any],
    load_script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: str,
) -> None:
    script, counts = load_script("folder_index"), []

    def open_here(program: str, root: Path, kind: str, cache: Path) -> float:
        """Runs the program in this process; its output is "SECONDS IMAGES"."""
        monkeypatch.setattr(sys, "argv", ["-c", str(root), kind])
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        printed: list[Any] = []
        exec(program, {"print": lambda *values: printed.extend(values)})
        counts.append(printed[1])
        return float(printed[0])

    monkeypatch.setattr(script, "CLASSES", 3)
    monkeypatch.setattr(script, "PER_SHARD", 7)
    monkeypatch.setattr(script, "seconds_to_open", open_here)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    written, flags = tmp_path / "index.json", ["--shards"] if kind == "shards" else []
    output = run_script("folder_index", "--images", "30", "--starts", "1", "--json", written, *flags)
    assert output.exit == 0, output.stderr
    report = json.loads(written.read_text())
    peers = ["torchvision ImageFolder, train alone"] if kind == "folder" else []
    assert list(report["seconds"]) == ["looked through", "from the note", *peers]
    assert (report["images"], report["shards"]) == (30, kind == "shards")
    assert counts == [30] * len(report["seconds"])
    assert output.stdout.count(" s\n") == len(report["seconds"])


def test_reproduce_smoke_times_each_study(
    run_script: Callable[..., Any],
    load_script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    script, commands = load_script("reproduce_smoke"), []

    def run(command: list[str], **_: Any) -> SimpleNamespace:
        study, folder = command[4], Path(command[6])
        commands.append(study)
        if study != "table2":
            (folder / f"{study}-report").mkdir()
            (folder / f"{study}-report" / "index.html").touch()
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(script, "subprocess", SimpleNamespace(run=run, DEVNULL=None))
    written = tmp_path / "smoke.json"
    output = run_script("reproduce_smoke", "table1", "figure4", "--json", written)
    assert output.exit == 0
    assert commands == list(json.loads(written.read_text())["seconds"]) == ["table1", "figure4"]
    assert run_script("reproduce_smoke", "table2").exit == "benchmarks/reproduce_smoke.py: table2 failed"
    unknown = run_script("reproduce_smoke", "table9")
    assert unknown.exit == 2
    assert "unknown study: table9" in unknown.stderr


def test_data_report_measures_reading_and_comparing(
    run_script: Callable[..., Any], photos: Path, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        shutil.copytree(photos, tmp_path / "classes" / name)
    written = tmp_path / "report.json"
    output = run_script("data_report", tmp_path / "classes", "--pairs-of", "3000", "--json", written)
    assert output.exit == 0, output.stderr
    report = json.loads(written.read_text())
    assert (report["images"], report["compared"]) == (4, 3000)
    assert all(report[part][kind] > 0 for part in ("report", "compare") for kind in ("clock", "cpu"))
    assert "report on 4 images: " in output.stdout
