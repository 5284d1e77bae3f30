"""Compares what `kdaug recommend` proposes with the errors that sweeps of the magnitude have measured.

    python tools/judge_recommend.py FOLDER ... [--out results/NAME] [--teacher run:DIR] [--root data] [--images N]

A FOLDER has finished runs that differ in views.magnitude, seeds, and whether they have a teacher, such as those of
`kdaug reproduce table1` or `kdaug sweep demo views.magnitude=0,1,2,3 teacher.source=none,bundled run.seed=0..2`. Runs
that differ in other settings are separate sweeps; those of fewer than three magnitudes are left out. The teacher is
that of the runs with a teacher, which must still be there; --teacher names another one, for all folders. No student is
trained. A FOLDER that an earlier call has written with --out is judged again by its recorded errors and measures.

Prints, and writes to --out: the rank correlation (Spearman) of each measure with the mean error over seeds, without and
with teacher; how many points the error at the recommended magnitude is above the lowest one; and the same for other
thresholds of the label trust, of which one is to be fitted on some sweeps and judged on others.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from scipy.stats import spearmanr

from kdaug.config import Teacher
from kdaug.errors import InputError
from kdaug.inspection.evidence import Evidence, EvidenceRequest, MeasuredViews, measure_magnitudes
from kdaug.inspection.measures import Estimate
from kdaug.inspection.recommendation import LEAST_TRUST, choose_magnitude
from kdaug.study.report.finished import SEEDS, FinishedRun, find_finished_runs, is_teacher_setting
from kdaug.study.report.tables import Table
from kdaug.training.context import build_context
from kdaug.training.progress import console_logging
from kdaug.training.resolve import read_resolved_recipe, teacher_run_recipes
from kdaug.training.teacher import load_checked_teacher

_logger = logging.getLogger("kdaug.judge_recommend")
LEAST_MAGNITUDES = 3
THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
MEASURES: dict[str, Callable[[Evidence], float]] = {
    "past recognition": lambda each: each.past.value,
    "T. stddev": lambda each: each.t_stddev,
    "label trust": lambda each: each.trust.value,
}


@dataclass(frozen=True)
class Sweep:
    """The runs of one recipe by magnitude. name: for tables. with_teacher: whether they have one."""

    name: str
    with_teacher: bool
    runs: dict[float, list[FinishedRun]]

    def errors(self) -> dict[float, float]:
        """The mean top-1 error in percent over the seeds, by magnitude, ascending."""
        return {m: statistics.fmean(run.top1_error for run in self.runs[m]) for m in sorted(self.runs)}


@dataclass(frozen=True)
class Judgement:
    """A sweep against the evidence of its teacher.

    correlations: Spearman's, of each measure with the error. recommended, best: magnitudes. lost: points that the error
    at the recommended magnitude is above the lowest one; by_threshold: the same for each of THRESHOLDS of the label
    trust.
    """

    sweep: str
    with_teacher: bool
    seeds: int
    errors: dict[float, float]
    evidence: list[dict[str, Any]]
    correlations: dict[str, float]
    recommended: float
    best: float
    lost: float
    by_threshold: dict[float, float]


def find_sweeps(folder: Path) -> list[Sweep]:
    """The sweeps of the magnitude below `folder`."""
    found: dict[str, Sweep] = {}
    for run in find_finished_runs([folder])[0]:
        magnitude = run.settings.get("views.magnitude")
        if magnitude is None:
            continue
        has_teacher = run.settings["teacher.source"] != "none"
        key = repr(sorted((n, repr(v)) for n, v in run.settings.items() if n not in (*SEEDS, "views.magnitude")))
        sweep = found.setdefault(key, Sweep(f"{folder.name}, {run.settings['data.name']}", has_teacher, {}))
        sweep.runs.setdefault(float(magnitude), []).append(run)
    return [sweep for sweep in found.values() if len(sweep.runs) >= LEAST_MAGNITUDES]


def _without_teacher_settings(run: FinishedRun) -> dict[str, Any]:
    ignored = (*SEEDS, "views.magnitude", "teacher.source")
    return {name: value for name, value in run.settings.items() if name not in ignored and not is_teacher_setting(name)}


def _first_run(sweep: Sweep) -> FinishedRun:
    return min((run for runs in sweep.runs.values() for run in runs), key=lambda run: (run.seeds, run.path))


def recipe_source(sweep: Sweep, sweeps: Sequence[Sweep]) -> FinishedRun:
    """The run whose recipe and teacher the evidence for `sweep` is from: one with a teacher, if there is one."""
    own = _without_teacher_settings(_first_run(sweep))
    for other in (sweep, *sweeps):
        if other.with_teacher and _without_teacher_settings(_first_run(other)) == own:
            return _first_run(other)
    return _first_run(sweep)


def measure(run: FinishedRun, magnitudes: tuple[float, ...], args: argparse.Namespace) -> MeasuredViews:
    """What the teacher of `run` predicts at `magnitudes`."""
    recipe = read_resolved_recipe(run.path / "recipe.yaml")
    recipe = replace(recipe, run=replace(recipe.run, dir=str(run.path), threads=args.threads))
    if args.root is not None:
        recipe = replace(recipe, data=replace(recipe.data, root=str(args.root)))
    if args.teacher is not None:
        recipe = replace(recipe, teacher=Teacher(source=args.teacher))
    context = build_context(recipe, Console(stderr=True))
    source = recipe.teacher.source
    if source == "none":
        raise InputError(f"{run.path} has no teacher, and no run like it has one", "name one with --teacher")
    if source == "train":
        source = ",".join(f"run:{each.run.dir}" for each in teacher_run_recipes(recipe, context.dataset.content))
    teacher = load_checked_teacher(context, source)
    return measure_magnitudes(context, teacher, EvidenceRequest(args.images, args.draws, magnitudes))


def judge(
    sweep: str, with_teacher: bool, seeds: int, errors: dict[float, float], measured: Sequence[Evidence]
) -> Judgement:
    """Compares the errors of a sweep by magnitude with the evidence at the same magnitudes."""
    evidence = [each for each in measured if each.magnitude in errors]
    lowest = min(errors.values())
    in_order = [errors[each.magnitude] for each in evidence]
    recommended = choose_magnitude(evidence)[0].magnitude
    return Judgement(
        sweep,
        with_teacher,
        seeds,
        errors,
        [asdict(each) for each in evidence],
        {name: float(spearmanr([read(e) for e in evidence], in_order).statistic) for name, read in MEASURES.items()},
        recommended,
        min(errors, key=lambda magnitude: errors[magnitude]),
        errors[recommended] - lowest,
        {t: errors[choose_magnitude(evidence, least_trust=t)[0].magnitude] - lowest for t in THRESHOLDS},
    )


def tables(judgements: Sequence[Judgement]) -> list[Table]:
    """Correlations and points lost, points lost by threshold, and errors with evidence by magnitude."""
    names = [(each.sweep, "with" if each.with_teacher else "without") for each in judgements]
    first = Table(
        "Recommended magnitudes",
        ("sweep", "teacher", *(f"{name}, rank correlation with the error" for name in MEASURES), "recommended M",
         "best M", "points lost", "seeds"),
        2,
        tuple(
            (*name, *(f"{each.correlations[m]:+.2f}" for m in MEASURES), f"{each.recommended:g}", f"{each.best:g}",
             f"{each.lost:.2f}", str(each.seeds))
            for name, each in zip(names, judgements, strict=True)
        ),
    )  # fmt: skip
    second = Table(
        f"Points lost with another least label trust than {LEAST_TRUST:g}",
        ("sweep", "teacher", *(f"{threshold:g}" for threshold in THRESHOLDS)),
        2,
        tuple(
            (*name, *(f"{each.by_threshold[t]:.2f}" for t in THRESHOLDS))
            for name, each in zip(names, judgements, strict=True)
        ),
    )
    third = Table(
        "Errors and evidence",
        ("sweep", "teacher", "M", "error, %", *MEASURES, "K"),
        2,
        tuple(
            (*name, f"{e['magnitude']:g}", f"{each.errors[e['magnitude']]:.2f}", f"{100 * e['past']['value']:.1f} %",
             f"{e['t_stddev']:.5f}", f"{e['trust']['value']:.3f}", str(e["k"]))
            for name, each in zip(names, judgements, strict=True)
            for e in each.evidence
        ),
    )  # fmt: skip
    return [first, second, third]


def judge_again(file: Path) -> list[Judgement]:
    """Judgements by the present rule, from the errors and the evidence in a judgements.json."""
    found = []
    for each in json.loads(file.read_text(encoding="utf-8")):
        errors = {float(magnitude): error for magnitude, error in each["errors"].items()}
        evidence = [
            Evidence(**{**values, "past": Estimate(**values["past"]), "trust": Estimate(**values["trust"])})
            for values in each["evidence"]
        ]
        found.append(judge(each["sweep"], each["with_teacher"], each["seeds"], errors, evidence))
    return found


def judge_folder(folder: Path, args: argparse.Namespace) -> list[Judgement]:
    """Judgements of the sweeps in `folder`, whose teachers are measured."""
    sweeps = find_sweeps(folder)
    if not sweeps:
        _logger.warning("%s has no runs that differ in the magnitude", folder)
    views: dict[Path, MeasuredViews] = {}
    magnitudes = tuple(sorted({magnitude for sweep in sweeps for magnitude in sweep.runs}))
    found = []
    for sweep in sweeps:
        run = recipe_source(sweep, sweeps)
        if run.path not in views:
            views[run.path] = measure(run, magnitudes, args)
        seeds = min(len(runs) for runs in sweep.runs.values())
        found.append(judge(sweep.name, sweep.with_teacher, seeds, sweep.errors(), views[run.path].evidence))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write table.md and judgements.json to DIR")
    parser.add_argument("--teacher", help="teacher of all runs, such as run:DIR, in place of their own")
    parser.add_argument("--root", type=Path, help="directory of the dataset, if it is not that of the runs")
    parser.add_argument("--images", type=int, help="see kdaug recommend")
    parser.add_argument("--draws", type=int, help="see kdaug recommend")
    parser.add_argument("--threads", type=int, help="threads of torch; default: all cores")
    args = parser.parse_args()
    judgements = []
    with console_logging(Console(stderr=True)):
        for folder in args.folders:
            recorded = folder / "judgements.json"
            judgements += judge_again(recorded) if recorded.is_file() else judge_folder(folder, args)
    text = "\n".join(f"{table.title}:\n\n{table.markdown()}" for table in tables(judgements))
    print(text, end="")
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "table.md").write_text(text, encoding="utf-8")
        content = json.dumps([asdict(each) for each in judgements], indent=1)
        (args.out / "judgements.json").write_text(content + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
