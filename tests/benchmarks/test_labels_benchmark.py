"""The benchmark of stored labels: what it writes is what it prints; the sweep really spares the teacher."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_tiny_run_measures_everything(tmp_path: Path) -> None:
    written = tmp_path / "labels.json"
    tiny = (
        "--network wide_resnet10_1 --batch 16 --rounds 2 --steps 1 --views 3000 --sweep-images 128 --sweep-epochs 2"
    ).split()
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "labels.py"), *tiny, "--json", str(written)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True, encoding="utf-8", timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(written.read_text())
    for one in report["bytes"]:
        assert one["bytes_per_view"] <= one["wanted"]
    for one in report["reading"]:
        assert f"{one['views_per_second']['median'] / 1e6:.2f} M" in done.stdout
    factors, milliseconds = report["steps"]["factor"], report["steps"]["milliseconds"]
    assert factors["without teacher"]["rounds"] == [1, 1]
    for name, spread in milliseconds.items():
        ratio = spread["rounds"][0] / milliseconds["without teacher"]["rounds"][0]
        assert factors[name]["rounds"][0] == pytest.approx(ratio, rel=1e-3)
    sweep = report["sweep"]
    online, stored = (sweep["views_seen_by_teacher"][kind] for kind in ("online", "stored"))
    assert (sweep["students"], sweep["training_batches"]) == (9, 256)
    assert online - stored == 8 * (256 + sweep["validation_images"]) - 128, "once instead of nine times, and once clean"
