"""benchmarks/labels.py: a short run prints what it writes; stored labels need the teacher once, not per student."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.mark.slow
@pytest.mark.usefixtures("small_images")
def test_short_run_measures_everything(
    run_script: Callable[..., Any],
    load_script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    labels = load_script("labels")
    monkeypatch.setattr(labels, "WEIGHTS", (0.5,))
    monkeypatch.setattr(labels, "KS", (1, 3))
    written = tmp_path / "labels.json"
    arguments = "--network wide_resnet10_1 --batch 16 --rounds 2 --steps 1 --views 3000 --sweep-images 128".split()
    output = run_script("labels", *arguments, "--json", written)
    assert output.exit == 0, output.stderr
    report = json.loads(written.read_text())
    for one in report["bytes"]:
        assert one["bytes_per_view"] <= one["wanted"]
    for one in report["reading"]:
        assert f"{one['views_per_second']['median'] / 1e6:.2f} M" in output.stdout
    factors, milliseconds = report["steps"]["factor"], report["steps"]["milliseconds"]
    assert factors["without teacher"]["rounds"] == [1, 1]
    for name, spread in milliseconds.items():
        ratio = spread["rounds"][0] / milliseconds["without teacher"]["rounds"][0]
        assert factors[name]["rounds"][0] == pytest.approx(ratio, rel=1e-3)
    sweep = report["sweep"]
    online, stored = (sweep["views_seen_by_teacher"][kind] for kind in ("online", "stored"))
    assert (sweep["students"], sweep["training_views"]) == (2, 256)
    assert online == 2 * (256 + sweep["validation_images"])
    assert stored == 256 + sweep["validation_images"] + 128, "the training views once, and the images without views"
