"""benchmarks/training_step.py and peers_kd.py: short runs, figures that follow from each other, current docs pages."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

SHORT_RUN = ("--network", "wide_resnet10_1", "--batch", "8", "--steps", "1", "--rounds", "2")
pytestmark = pytest.mark.usefixtures("small_images")


def medians(report: dict[str, Any]) -> dict[tuple[str, int], float]:
    """Milliseconds per step by contender and threads; checks each timing."""
    by_contender = {}
    for timing in report["timings"]:
        spread = timing["milliseconds"]
        assert len(spread["rounds"]) == 2
        assert 0 < spread["lowest"] <= spread["median"] <= spread["highest"]
        assert timing["images_per_second"] == pytest.approx(8e3 / spread["median"], rel=1e-3)
        by_contender[timing["contender"], timing["threads"]] = spread["median"]
    return by_contender


def checked_ratios(report: dict[str, Any]) -> set[tuple[str, str]]:
    """The pairs that were compared; fails unless every ratio follows from the medians."""
    by_contender = medians(report)
    for ratio in report["ratios"]:
        fast, slow = ((ratio[name], ratio["threads"]) for name in ("contender", "against"))
        assert ratio["value"] == pytest.approx(by_contender[slow] / by_contender[fast], rel=1e-3)
        assert ratio["lowest"] <= ratio["value"] <= ratio["highest"]
    return {(ratio["contender"], ratio["against"]) for ratio in report["ratios"]}


def assert_settings(report: dict[str, Any]) -> None:
    settings = report["settings"]
    expected = {"network": "wide_resnet10_1", "batch": 8, "rounds": 2, "steps": 1, "device": "cpu", "compiled": False}
    assert settings.items() >= expected.items()
    assert "random bytes" in settings["images"]
    assert report["machine"]["processor"]
    assert {"kdaug", "torch", "timm"} <= set(report["machine"]["versions"])
    assert len(report["load"]) == 2
    assert all(entrant["differs"] for entrant in report["entrants"])


def assert_shares(report: dict[str, Any]) -> None:
    """The share of the matrix product's rate follows from operations and medians."""
    assert report["operations_per_step"] == expected_operations(8)
    by_contender = medians(report)
    steps = {(timing["contender"], timing["threads"]): timing["milliseconds"]["rounds"] for timing in report["timings"]}
    rates = {rate["threads"]: rate["teraflops_per_second"] for rate in report["matrix"]}
    assert {(share["contender"], share["threads"]) for share in report["shares"]} == {
        (name, count) for name in ("bare", "loop") for count in rates
    }
    for share in report["shares"]:
        key, rate = (share["contender"], share["threads"]), rates[share["threads"]]
        percent = 1e-7 * report["operations_per_step"] / by_contender[key] / rate["median"]
        by_round = [
            1e-7 * report["operations_per_step"] / a / b for a, b in zip(steps[key], rate["rounds"], strict=True)
        ]
        expected = (percent, min(by_round), max(by_round))
        assert (share["percent"], share["lowest"], share["highest"]) == pytest.approx(expected, rel=1e-3)


def expected_operations(images: int) -> int:
    """Multiplications and additions of one step of a Wide-ResNet-10-1 with 100 classes on `images` of 32 pixels."""

    def convolution(inputs: int, outputs: int, kernel: int, side: int) -> int:
        return 2 * images * outputs * side**2 * inputs * kernel**2

    stem = convolution(3, 16, 3, 32)
    first = convolution(16, 16, 3, 32) + convolution(16, 16, 3, 32)
    second = convolution(16, 32, 3, 16) + convolution(32, 32, 3, 16) + convolution(16, 32, 1, 16)
    third = convolution(32, 64, 3, 8) + convolution(64, 64, 3, 8) + convolution(32, 64, 1, 8)
    classifier = 2 * images * 64 * 100
    return 2 * stem + 3 * (first + second + third + classifier)  # the images need no gradient


def test_training_step_short_run(
    run_script: Callable[..., Any],
    load_script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    written, set_threads = tmp_path / "report.json", []
    monkeypatch.setattr(load_script("training_step"), "available_cores", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", set_threads.append)  # two threads are slow on a busy machine
    output = run_script("training_step", *SHORT_RUN, "--json", written)
    assert output.exit == 0, output.stderr
    assert "round 2 of 2" in output.stderr
    assert run_script("training_step", "--table", written).stdout == output.stdout

    report = json.loads(written.read_text(encoding="utf-8"))
    assert_settings(report)
    assert_shares(report)
    threads = {timing["threads"] for timing in report["timings"]}
    assert threads == {1, 2} <= set(set_threads)
    names = {"bare", "loop", "bare-teacher", "loop-teacher", "views"}
    assert set(medians(report)) == {(name, count) for name in names for count in threads}
    pairs = checked_ratios(report)
    assert pairs == {("loop", "bare"), ("bare-teacher", "bare"), ("loop-teacher", "bare-teacher")}

    loops = [ratio["value"] for ratio in report["ratios"] if ratio["contender"] == "loop"]
    assert [target["measured"] for target in report["targets"]] == loops
    assert [target["met"] for target in report["targets"]] == [value >= 0.95 for value in loops]
    assert output.stdout.count("≥ 0.95×") == len(threads)


@pytest.mark.slow
def test_peers_short_run_finds_equal_losses(
    run_script: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("timm.task", reason="older versions of timm have no distillation task")
    monkeypatch.setitem(sys.modules, "torchdistill", None)
    written = tmp_path / "report.json"
    output = run_script("peers_kd", *SHORT_RUN, "--json", written)
    assert output.exit == 0, output.stderr
    assert run_script("peers_kd", "--table", written).stdout == output.stdout

    report = json.loads(written.read_text(encoding="utf-8"))
    assert_settings(report)
    losses = report["first_losses"]
    assert set(losses) == {"kdaug-in-place", "timm-in-place"}
    tolerance = 1e-4 if report["settings"]["precision"] == "float32" else 2e-2
    assert losses["timm-in-place"] == pytest.approx(losses["kdaug-in-place"], rel=tolerance)

    missing = {entrant["name"]: entrant["missing"] for entrant in report["entrants"]}
    measured = {name for name, _ in medians(report)}
    assert measured == {"kdaug-in-place", "kdaug", "timm-in-place", "timm", "timm-workers"}
    assert {name for name, reason in missing.items() if reason is None} == measured
    (reason,) = {reason for reason in missing.values() if reason}
    assert "torchdistill" in reason
    assert f"**Missing: {reason}.**" in output.stdout
    assert len({timing["threads"] for timing in report["timings"]}) == 1
    assert checked_ratios(report) == {
        ("timm-in-place", "kdaug-in-place"),
        ("timm", "kdaug"),
        ("timm-workers", "kdaug"),
        ("kdaug", "kdaug-in-place"),
        ("timm", "timm-in-place"),
        ("timm-workers", "timm-in-place"),
    }


def test_peers_with_different_losses_are_refused(load_script: Callable[[str], ModuleType]) -> None:
    require_equal_losses = load_script("peers_kd")._require_equal_losses
    require_equal_losses({"kdaug": 4.0, "timm": 4.0003}, 1e-4)
    for loss in (4.0005, float("nan")):
        with pytest.raises(SystemExit, match="first loss of timm is"):
            require_equal_losses({"kdaug": 4.0, "timm": loss}, 1e-4)


@pytest.mark.parametrize("script", ["training_step", "peers_kd"])
def test_unknown_network_is_an_input_error(run_script: Callable[..., Any], script: str) -> None:
    output = run_script(script, "--network", "wide_resnet10_3")
    assert output.exit == 2
    assert "wide_resnet10_3" in output.stderr
    assert "Traceback" not in output.stderr


@pytest.mark.parametrize("name", ["training_step", "peers_kd"])
def test_docs_page_shows_committed_results(assert_page_shows: Callable[[str, str], None], name: str) -> None:
    assert_page_shows("training-benchmarks.md", name)
