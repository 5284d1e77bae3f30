"""benchmarks/views.py: a short run measures what is installed and names what is missing; its docs page is current."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import kdaug

SETTINGS = [(size, filter) for size in (32, 224) for filter in ("nearest", "bilinear")]
PIXELS = np.random.default_rng(0).integers(0, 256, (8, 331, 3), np.uint8)


@pytest.fixture
def short_run(load_script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    """Few images, two rounds, and a constant gain of the second thread."""
    views = load_script("views")
    monkeypatch.setattr(views, "ROUNDS", 2)
    monkeypatch.setattr(views, "two_threads_gain", lambda: [1.5, 1.9])
    monkeypatch.setitem(views.COUNTS, 32, 8)
    monkeypatch.setitem(views.COUNTS, 224, 2)


@pytest.mark.usefixtures("short_run")
def test_run_measures_installed_and_names_missing(
    run_script: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for package in ("kornia", "nvidia.dali"):
        monkeypatch.setitem(sys.modules, package, None)
    written = tmp_path / "views.json"
    names = "ours,pillow,kornia,dali,dali-all,ops"
    output = run_script("views", "--only", names, "--seconds", "0.01", "--json", written)
    assert output.exit == 0
    report = json.loads(written.read_text(encoding="utf-8"))

    measured = {(one["contender"], one["size"], one["filter"]): one["microseconds"] for one in report["timings"]}
    assert set(measured) == {(name, *setting) for name in ("ours", "pillow") for setting in SETTINGS}
    for spread in measured.values():
        assert 0 < spread["lowest"] <= spread["median"] <= spread["highest"]
        assert len(spread["rounds"]) == 2
    missing = {one["name"]: one["missing"] for one in report["entrants"]}
    assert missing["ours"] is missing["pillow"] is None
    assert "kornia" in missing["kornia"]
    assert "nvidia.dali" in missing["dali"]
    assert missing["dali-all"] == missing["dali"]
    assert all(one["differs"] for one in report["entrants"])

    assert report["two_threads"]["rounds"] == [1.5, 1.9] * len(SETTINGS)
    machine = report["machine"]
    assert machine["processor"]
    assert machine["cores"] >= 1
    assert {"numpy", "numba", "pillow", "torchvision", "kornia"} <= set(machine["versions"])
    assert [(one["size"], one["images"]) for one in report["batches"]] == [(32, 8), (224, 2)]
    assert all("Fashion-MNIST" in one["source"] for one in report["batches"])
    assert all(one["measured"] is None for one in report["targets"] if "fastest peer" not in one["what"])
    for op in report["ops"]:
        assert op["times_floor"] == pytest.approx(op["ours"]["median"] / op["floor"], abs=0.01)

    assert output.stdout.count(f"**Missing: {missing['dali']}.**") == 2
    assert "Not part of this run: kdaug, 2 threads; " in output.stdout
    assert "round 2 of 2" in output.stderr
    assert run_script("views", "--table", written).stdout == output.stdout


def test_unknown_name_is_an_error(run_script: Callable[..., Any]) -> None:
    output = run_script("views", "--only", "ours,korina")
    assert output.exit == 2
    assert "'korina' is unknown; choose from ours, ours-2," in output.stderr


def test_difference_from_pillow_stops_the_script(
    run_script: Callable[..., Any],
    load_script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    short_run: None,
) -> None:
    views = load_script("views")
    apply = views.kdaug.apply
    monkeypatch.setattr(views.kdaug, "apply", lambda images, plan: apply(images, plan) ^ 1)
    assert "differs from Pillow's" in run_script("views", "--only", "ours").exit


def test_docs_page_shows_committed_results(assert_page_shows: Callable[[str, str], None]) -> None:
    assert_page_shows("benchmarks.md", "views")


@pytest.fixture
def dali(load_script: Callable[[str], ModuleType]) -> ModuleType:
    pytest.importorskip("nvidia.dali", reason="needs NVIDIA DALI, which the extra `bench` installs on Linux")
    return load_script("views_benchmark.dali")


def workload_of(load_script: Callable[[str], ModuleType], images: NDArray[np.uint8], filter: str = "nearest") -> Any:
    return load_script("views_benchmark.peers").ViewWorkload(images, filter)


def shift(image: NDArray[np.uint8], pixels: int) -> NDArray[np.uint8]:
    """The image moved to the right (left if negative), black where it was."""
    moved = np.roll(image, pixels, axis=1)
    moved[:, slice(0, pixels) if pixels > 0 else slice(pixels, None)] = 0
    return moved


def test_dali_draws_torchvisions_ops_per_image(load_script: Callable[[str], ModuleType], dali: ModuleType) -> None:
    """Among views of one image are those of torchvision's ops at M=9 that need no interpolation, and their pairs."""
    workload = workload_of(load_script, np.stack([PIXELS] * 1024))
    views = {np.asarray(view).tobytes() for view in dali.dali_on_cpu(1)(workload)()}
    right, left = shift(PIXELS, 45), shift(PIXELS, -45)  # 150 / 331 of the width, times 9 / 30
    for expected in (PIXELS, right, left, PIXELS & 0xFE, right & 0xFE, left & 0xFE):
        assert expected.tobytes() in views
    assert len(views) > 14 * 14


def test_dali_uses_filter_and_draws_anew(load_script: Callable[[str], ModuleType], dali: ModuleType) -> None:
    """Of views of a black and white image, nearest keeps more black and white than bilinear."""
    image = np.where(PIXELS < 128, 0, 255).astype(np.uint8)
    pure = {}
    for filter in ("nearest", "bilinear"):
        run = dali.dali_on_cpu(None)(workload_of(load_script, np.stack([image] * 256), filter))
        first, second = run().as_array().copy(), run().as_array()
        assert not np.array_equal(first, second)
        pure[filter] = np.isin(first, (0, 255)).all(axis=(1, 2, 3)).sum()
    assert pure["nearest"] > 1.5 * pure["bilinear"]


def test_batch_size_changes_dalis_views_only(load_script: Callable[[str], ModuleType], dali: ModuleType) -> None:
    """Checks the count that the description of the contender states; of kdaug's views, none changes."""
    images = load_script("views_benchmark.photos").load_photos(32, None).images
    workload, policy = workload_of(load_script, images), kdaug.create_policy("randaugment-n2-m9@torchvision")

    def kdaugs(size: int) -> NDArray[np.uint8]:
        parts = np.split(np.arange(len(images)), len(images) // size)
        return np.concatenate([kdaug.apply(images[part], policy.plan(0, 0, part, (32, 32))) for part in parts])

    def changed(views_of: Callable[[int], NDArray[np.uint8]]) -> int:
        return int((views_of(8) != views_of(4)).any(axis=(1, 2, 3)).sum())

    assert len(images) == dali.COMPARED_VIEWS
    assert changed(lambda size: dali.views_in_batches(workload, size)) == dali.CHANGED_VIEWS
    assert changed(kdaugs) == 0


def test_fastest_peer_is_the_fastest_on_one_thread(load_script: Callable[[str], ModuleType]) -> None:
    report, rounds = load_script("views_benchmark.report"), load_script("harness.rounds")
    records = load_script("harness.report")
    machine = records.Machine("", 2, "", "", {}, "", "")
    times = {"ours": [2, 4], "ours-2": [1, 1], "torchvision": [90, 90], "dali": [20, 60], "dali-all": [8, 8]}
    measured = report.ViewsReport(
        machine=machine,
        policy="",
        batches=[],
        entrants=[records.ContenderRecord(name, name.upper(), "") for name in [*times, "kornia"]],
        timings=[report.Timing(name, 32, "nearest", rounds.spread_of(values)) for name, values in times.items()],
    )
    targets = {one.what: one.measured for one in load_script("views_benchmark.targets").views_targets(measured)}
    assert targets["32 px, nearest: 1 thread, speed over the fastest peer (DALI)"] == 12.5  # of 10 and 15, by round
    assert targets["32 px, nearest: 2 threads, speed over DALI on all cores"] == 8
    assert targets["224 px, nearest: 1 thread, speed over the fastest peer"] is None
