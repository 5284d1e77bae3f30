"""Compares supervision settings on the bundled characters: the paper's, adaptive ones and classic distillation.

    python tools/supervision_study.py FOLDER [--seeds 0 1 2] [--magnitudes 1 3 5 7] [--only NAME ...]
    python tools/supervision_study.py FOLDER --table results/NAME    # writes the table of finished runs, trains nothing

Data, network, teacher and training are those of `kdaug reproduce table1 --scale bundled`. For each seed and magnitude
the teacher's labels are stored once, and one student is trained per supervision with the same views, initial weights
and steps. Finished runs are skipped and stopped runs are resumed.
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
from kdaug.recipes.scales import at_scale
from kdaug.training import train
from kdaug.training.labeling import LabelRequest, label_views
from kdaug.views.policies import spec_with_magnitude

CLASSES = 242
TOP_K = Supervision(weight=1.0, k=5, temperature=2.0)  # the paper's for CIFAR-100
ALL = replace(TOP_K, k=CLASSES)
DECOUPLED = replace(TOP_K, divergence="decoupled", temperature=4.0)
SUPERVISIONS: dict[str, Supervision | None] = {
    "label": None,
    "top-k": TOP_K,
    "top-k-renormalized": replace(TOP_K, reading="renormalized"),
    "top-k-grouped": replace(TOP_K, reading="grouped"),
    "top-k-standardized": replace(TOP_K, standardize_logits=True),
    "all": ALL,
    "all-standardized": replace(ALL, standardize_logits=True),
    "mass": replace(ALL, mass=0.95, reading="grouped"),
    "trust": replace(TOP_K, label_trust=True),
    "trust-all": replace(ALL, label_trust=True),
    "rising": replace(TOP_K, weight=2.0, weight_schedule="rising"),
    "falling": replace(TOP_K, weight=2.0, weight_schedule="falling"),
    "magnitude": replace(TOP_K, weight=2.0, weight_by_magnitude=True),
    "drop-worst": replace(TOP_K, drop_worst=0.1),
    "soft-labels": replace(ALL, label_weight=0.0),
    "hard": replace(TOP_K, divergence="hard", label_weight=0.5, weight=0.5),
    "decoupled": DECOUPLED,
    "decoupled-trust": replace(DECOUPLED, label_trust=True),
    "dist": replace(TOP_K, divergence="dist", temperature=4.0, weight=2.0),
    "decoupled-standardized": replace(DECOUPLED, standardize_logits=True),
    "smoothing": Supervision(label_smoothing=0.1),
}
WITHOUT_TEACHER = ("label", "smoothing")


def base(folder: Path, magnitude: float, seed: int) -> Recipe:
    """The recipe that all students of one magnitude and seed share."""
    recipe = at_scale(named_recipe("cifar100-table1-m1-kd"), "bundled")
    return replace(
        recipe,
        views=replace(recipe.views, policy=spec_with_magnitude(recipe.views.policy, magnitude), seed=seed),
        run=replace(recipe.run, seed=seed, threads=1, device="cpu", dir=str(folder / "unused")),
    )


def study(folder: Path, magnitudes: Iterable[float], seeds: Iterable[int], names: Iterable[str]) -> None:
    """Trains the runs in `folder` that are not finished."""
    for seed in seeds:
        for magnitude in magnitudes:
            recipe, labels = base(folder, magnitude, seed), folder / f"labels-m{magnitude:g}-s{seed}"
            label_views(recipe, labels, LabelRequest(k=CLASSES, temperatures=(2.0, 4.0), precision="float32"))
            for name in names:
                run = replace(recipe.run, dir=str(folder / f"m{magnitude:g}-{name}-s{seed}"), resume=True)
                teacher = Teacher() if name in WITHOUT_TEACHER else Teacher(labels=str(labels))
                train(replace(recipe, teacher=teacher, supervision=SUPERVISIONS[name] or Supervision(), run=run))


def errors_of(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Top-1 error in percent of every finished run, by magnitude, supervision and seed."""
    errors: dict[str, dict[str, dict[str, float]]] = {}
    for metrics in sorted(folder.glob("m*-s*/metrics.jsonl")):
        last = json.loads(metrics.read_text().splitlines()[-1])
        if last["kind"] == "end":
            magnitude, rest = metrics.parent.name.split("-", 1)
            name, seed = rest.rsplit("-", 1)
            errors.setdefault(magnitude, {}).setdefault(name, {})[seed] = last["top1_error"]
    return errors


def table(errors: dict[str, dict[str, dict[str, float]]]) -> str:
    """Mean and standard deviation over seeds by supervision and magnitude, and the mean paired gain over top-k."""
    magnitudes = sorted(errors)
    names = [magnitude.upper() for magnitude in magnitudes]
    head = ["supervision", *(f"{name} error %" for name in names), *(f"{name} gain over top-k" for name in names)]
    lines = [head, ["---"] * len(head)]
    for name in SUPERVISIONS:
        if any(name in errors[m] for m in magnitudes):
            cells = [_mean(errors[m].get(name, {}).values()) for m in magnitudes]
            gains = [_mean(_gains(errors[m].get(name, {}), errors[m].get("top-k", {}))) for m in magnitudes]
            lines.append([name, *cells, *gains])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _gains(errors: dict[str, float], baseline: dict[str, float]) -> list[float]:
    return [baseline[seed] - errors[seed] for seed in errors if seed in baseline]


def _mean(values: Iterable[float]) -> str:
    errors = list(values)
    if not errors:
        return "-"
    deviation = f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
    return f"{statistics.fmean(errors):.2f}{deviation} ({len(errors)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--magnitudes", type=float, nargs="+", default=[1.0, 3.0, 5.0, 7.0])
    parser.add_argument("--only", nargs="+", choices=SUPERVISIONS, default=list(SUPERVISIONS), metavar="NAME")
    parser.add_argument("--table", type=Path, metavar="DIR", help="write table.md and errors.json to DIR")
    args = parser.parse_args()
    if args.table is None:
        study(args.folder, args.magnitudes, args.seeds, args.only)
    errors = errors_of(args.folder)
    if args.table is not None:
        args.table.mkdir(parents=True, exist_ok=True)
        (args.table / "table.md").write_text(table(errors))
        ways: dict[str, Any] = {
            name: None if name == "label" else vars(settings or Supervision())
            for name, settings in SUPERVISIONS.items()
        }
        (args.table / "errors.json").write_text(json.dumps({"ways": ways, "errors": errors}, indent=1) + "\n")
    print(table(errors), end="")


if __name__ == "__main__":
    main()
