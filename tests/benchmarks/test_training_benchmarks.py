"""The benchmarks of training run, their figures follow from one another, and --table prints what the JSON says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TINY = ("--network", "wide_resnet10_1", "--batch", "8", "--steps", "2", "--rounds", "2")


def run(script: str, *arguments: str, shadow: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The benchmark `script`; what lies in `shadow` is imported instead of what is installed."""
    found = [str(shadow)] if shadow else []
    path = os.pathsep.join([*found, *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}
    environment.pop("KDAUG_DATA", None)
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=250)


def tiny_report(script: str, folder: Path, shadow: Path | None = None) -> tuple[dict[str, Any], str]:
    """What a tiny run writes to JSON, and what it prints; the same as --table prints of that JSON."""
    written = folder / "report.json"
    done = run(script, *TINY, "--json", str(written), shadow=shadow)
    assert done.returncode == 0, done.stderr
    assert "round 2 of 2" in done.stderr
    assert run(script, "--table", str(written)).stdout == done.stdout
    report: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
    return report, done.stdout


def medians(report: dict[str, Any]) -> dict[tuple[str, int], float]:
    """Milliseconds per step by contender and threads, once it is sure that they are sound."""
    found = {}
    for timing in report["timings"]:
        spread = timing["milliseconds"]
        assert len(spread["rounds"]) == 2
        assert 0 < spread["lowest"] <= spread["median"] <= spread["highest"]
        assert timing["images_per_second"] == pytest.approx(8e3 / spread["median"], rel=1e-3)
        found[timing["contender"], timing["threads"]] = spread["median"]
    return found


def assert_ratios_follow(report: dict[str, Any]) -> set[tuple[str, str]]:
    """Fails unless every ratio is that of the report's medians; the pairs that were compared."""
    by_contender = medians(report)
    for ratio in report["ratios"]:
        fast, slow = ((ratio[name], ratio["threads"]) for name in ("contender", "against"))
        assert ratio["value"] == pytest.approx(by_contender[slow] / by_contender[fast], rel=1e-3)
        assert ratio["lowest"] <= ratio["value"] <= ratio["highest"]
    return {(ratio["contender"], ratio["against"]) for ratio in report["ratios"]}


def assert_settings(report: dict[str, Any]) -> None:
    settings = report["settings"]
    wanted = {"network": "wide_resnet10_1", "batch": 8, "rounds": 2, "steps": 2, "device": "cpu", "compiled": False}
    assert settings.items() >= wanted.items()
    assert "random bytes" in settings["images"]
    assert report["machine"]["processor"]
    assert {"kdaug", "torch", "timm"} <= set(report["machine"]["versions"])
    assert len(report["load"]) == 2
    assert all(entrant["differs"] for entrant in report["entrants"])


def operations_by_hand(images: int) -> int:
    """Multiplications and additions of one step of a Wide-ResNet-10-1 with 100 classes on `images` of 32 pixels."""

    def convolution(inputs: int, outputs: int, kernel: int, side: int) -> int:
        return 2 * images * outputs * side**2 * inputs * kernel**2

    stem = convolution(3, 16, 3, 32)
    first = convolution(16, 16, 3, 32) + convolution(16, 16, 3, 32)
    second = convolution(16, 32, 3, 16) + convolution(32, 32, 3, 16) + convolution(16, 32, 1, 16)
    third = convolution(32, 64, 3, 8) + convolution(64, 64, 3, 8) + convolution(32, 64, 1, 8)
    classifier = 2 * images * 64 * 100
    return 2 * stem + 3 * (first + second + third + classifier)  # no gradient is wanted of the images


@pytest.fixture(scope="module")
def step_report(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    return tiny_report("training_step.py", tmp_path_factory.mktemp("training_step"))


@pytest.mark.slow
def test_the_whole_loop_is_measured_beside_the_bare_step(step_report: tuple[dict[str, Any], str]) -> None:
    report, printed = step_report
    assert_settings(report)
    threads = {timing["threads"] for timing in report["timings"]}
    assert 1 in threads
    names = {"bare", "loop", "bare-teacher", "loop-teacher", "views"}
    assert set(medians(report)) == {(name, count) for name in names for count in threads}
    pairs = assert_ratios_follow(report)
    assert pairs == {("loop", "bare"), ("bare-teacher", "bare"), ("loop-teacher", "bare-teacher")}

    loops = [ratio["value"] for ratio in report["ratios"] if ratio["contender"] == "loop"]
    assert [target["measured"] for target in report["targets"]] == loops
    assert [target["met"] for target in report["targets"]] == [value >= 0.95 for value in loops]
    assert printed.count("≥ 0.95×") == len(threads)


@pytest.mark.slow
def test_the_share_of_the_matrix_rate_follows_from_operations_and_medians(
    step_report: tuple[dict[str, Any], str],
) -> None:
    report, _ = step_report
    assert report["operations_per_step"] == operations_by_hand(8)
    by_contender = medians(report)
    rates = {rate["threads"]: rate["teraflops_per_second"]["median"] for rate in report["matrix"]}
    assert {(share["contender"], share["threads"]) for share in report["shares"]} == {
        (name, count) for name in ("bare", "loop") for count in rates
    }
    for share in report["shares"]:
        seconds = by_contender[share["contender"], share["threads"]] / 1e3
        reached = report["operations_per_step"] / seconds / 1e12
        assert share["percent"] == pytest.approx(100 * reached / rates[share["threads"]], rel=1e-3)
        assert share["lowest"] <= share["percent"] <= share["highest"]


@pytest.mark.slow
def test_peers_find_the_same_loss_and_what_is_missing_is_named(tmp_path: Path) -> None:
    pytest.importorskip("timm.task", reason="older versions of timm do not distil")
    (tmp_path / "torchdistill.py").write_text("raise ImportError('torchdistill is not here')\n")
    report, printed = tiny_report("peers_kd.py", tmp_path, shadow=tmp_path)
    assert_settings(report)
    losses = report["first_losses"]
    assert set(losses) == {"kdaug-in-place", "timm-in-place"}
    assert losses["timm-in-place"] == pytest.approx(losses["kdaug-in-place"], rel=1e-4)

    missing = {entrant["name"]: entrant["missing"] for entrant in report["entrants"]}
    measured = {name for name, _ in medians(report)}
    assert measured == {"kdaug-in-place", "kdaug", "timm-in-place", "timm", "timm-workers"}
    assert {name for name, why in missing.items() if why is None} == measured
    assert {why for why in missing.values() if why} == {"torchdistill is not here"}
    assert "**Missing: torchdistill is not here.**" in printed
    assert len({timing["threads"] for timing in report["timings"]}) == 1
    assert assert_ratios_follow(report) == {
        ("timm-in-place", "kdaug-in-place"),
        ("timm", "kdaug"),
        ("timm-workers", "kdaug"),
        ("kdaug", "kdaug-in-place"),
        ("timm", "timm-in-place"),
        ("timm-workers", "timm-in-place"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("script", ["training_step.py", "peers_kd.py"])
def test_a_network_that_there_is_not_is_refused_by_name(script: str) -> None:
    done = run(script, "--network", "wide_resnet10_3")
    assert done.returncode == 2
    assert "there is no network 'wide_resnet10_3'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["training_step", "peers_kd"])
def test_the_page_shows_the_results_in_the_repository(name: str) -> None:
    page = (ROOT / "docs" / "training-benchmarks.md").read_text(encoding="utf-8")
    results = f"benchmarks/results/{name}.json"
    begin, end = f"<!-- begin: python benchmarks/{name}.py --table {results} -->", "<!-- end -->"
    shown = page.partition(begin)[2].partition(end)[0].strip()
    assert shown == run(f"{name}.py", "--table", str(ROOT / results)).stdout.strip()
