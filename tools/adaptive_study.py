"""Compares ways to supervise on the bundled images, small and from stored labels: constant, adaptive, classic.

usage: python tools/adaptive_study.py FOLDER [--seeds 0 1 2] [--magnitudes 2 5 7] [--only NAME ...]
       python tools/adaptive_study.py FOLDER --table results/NAME     what there is, and nothing trained

For each seed and magnitude the teacher's labels are stored once, and one student learns under each supervision: the
same views, initial weights and steps. A run that is finished is not repeated, one that was stopped goes on.
Wide-ResNet-10-1, 4,000 images, 8 epochs, torch on one thread; the teacher is the same network, trained for 12 epochs on
plain images, seed 0.
"""

import argparse
import json
import statistics
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdaug.config import Recipe, Supervision, Teacher
from kdaug.recipes import named_recipe
from kdaug.training import train
from kdaug.training.labelling import LabelRequest, label_views

CLASSES = 10
TOP_K = Supervision(weight=1.0, k=3, temperature=2.0, reading="renormalized")  # K, λ and T the paper's, for ten classes
ALL = replace(TOP_K, k=CLASSES)
WAYS: dict[str, Supervision | None] = {
    "label": None,
    "top-k": TOP_K,
    "top-k-as-written": replace(TOP_K, reading="as-written"),
    "all": ALL,
    "mass": replace(ALL, mass=0.95, reading="grouped"),
    "trust": replace(TOP_K, label_trust=True),
    "trust-all": replace(ALL, label_trust=True),
    "rising": replace(TOP_K, weight=2.0, weight_schedule="rising"),
    "falling": replace(TOP_K, weight=2.0, weight_schedule="falling"),
    "magnitude": replace(TOP_K, weight=2.0, weight_by_magnitude=True),
    "drop-worst": replace(TOP_K, drop_worst=0.1),
    "soft-labels": replace(ALL, label_weight=0.0),
    "hard": replace(TOP_K, divergence="hard", label_weight=0.5, weight=0.5),
    "decoupled": replace(TOP_K, divergence="decoupled", temperature=4.0),
    "smoothing": Supervision(label_smoothing=0.1),
}
WITHOUT_TEACHER = ("label", "smoothing")


def base(folder: Path, magnitude: float, seed: int) -> Recipe:
    """The recipe of all students at one magnitude and seed."""
    demo = named_recipe("demo")
    return replace(
        demo,
        data=replace(demo.data, train_images=4000),
        views=replace(demo.views, magnitude=magnitude, seed=seed),
        teacher=replace(demo.teacher, epochs=12),
        optimization=replace(demo.optimization, epochs=8),
        run=replace(demo.run, seed=seed, threads=1, evaluate_every=8, device="cpu", dir=str(folder / "unused")),
    )


def study(folder: Path, magnitudes: Iterable[float], seeds: Iterable[int], ways: Iterable[str]) -> None:
    """Trains what is not finished in `folder`."""
    for seed in seeds:
        for magnitude in magnitudes:
            recipe, labels = base(folder, magnitude, seed), folder / f"labels-m{magnitude:g}-s{seed}"
            label_views(recipe, labels, LabelRequest(k=CLASSES, temperatures=(2.0, 4.0), precision="float32"))
            for way in ways:
                run = replace(recipe.run, dir=str(folder / f"m{magnitude:g}-{way}-s{seed}"), resume=True)
                teacher = Teacher() if way in WITHOUT_TEACHER else Teacher(labels=str(labels))
                train(replace(recipe, teacher=teacher, supervision=WAYS[way] or Supervision(), run=run))


def errors_of(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Top-1 error in percent of every finished run: by magnitude, way, seed."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for metrics in sorted(folder.glob("m*-s*/metrics.jsonl")):
        last = json.loads(metrics.read_text().splitlines()[-1])
        if last["kind"] == "end":
            magnitude, rest = metrics.parent.name.split("-", 1)
            way, seed = rest.rsplit("-", 1)
            found.setdefault(magnitude, {}).setdefault(way, {})[seed] = last["top1_error"]
    return found


def table(errors: dict[str, dict[str, dict[str, float]]]) -> str:
    """Mean and standard deviation over seeds of each way at each magnitude, and the mean paired gain over top-k."""
    magnitudes = sorted(errors)
    head = ["way", *(f"{m.upper()} error %" for m in magnitudes), *(f"{m.upper()} gain over top-k" for m in magnitudes)]
    lines = [head, ["---"] * len(head)]
    for way in WAYS:
        if any(way in errors[m] for m in magnitudes):
            cells = [_mean(errors[m].get(way, {}).values()) for m in magnitudes]
            gains = [_mean(_gains(errors[m].get(way, {}), errors[m].get("top-k", {}))) for m in magnitudes]
            lines.append([way, *cells, *gains])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _gains(of: dict[str, float], against: dict[str, float]) -> list[float]:
    return [against[seed] - of[seed] for seed in of if seed in against]


def _mean(values: Iterable[float]) -> str:
    known = list(values)
    if not known:
        return "-"
    spread = f" ± {statistics.stdev(known):.2f}" if len(known) > 1 else ""
    return f"{statistics.fmean(known):.2f}{spread} ({len(known)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--magnitudes", type=float, nargs="+", default=[2.0, 5.0, 7.0])
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS), metavar="NAME")
    parser.add_argument("--table", type=Path, help="write table.md and errors.json there")
    given = parser.parse_args()
    if given.table is None:
        study(given.folder, given.magnitudes, given.seeds, given.only)
    errors = errors_of(given.folder)
    if given.table is not None:
        given.table.mkdir(parents=True, exist_ok=True)
        (given.table / "table.md").write_text(table(errors))
        ways: dict[str, Any] = {
            way: None if way == "label" else vars(settings or Supervision()) for way, settings in WAYS.items()
        }
        (given.table / "errors.json").write_text(json.dumps({"ways": ways, "errors": errors}, indent=1) + "\n")
    print(table(errors), end="")


if __name__ == "__main__":
    main()
