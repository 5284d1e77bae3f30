"""A report on finished runs: tables, figures, and one page with everything in it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from kdaug.config import Data, read_recipe, to_yaml
from kdaug.errors import InputError
from kdaug.runs.status import find_runs
from kdaug.storage.atomic import atomic_write
from kdaug.study.report.compare import (
    FinishedRun,
    Group,
    common_settings,
    default_baseline,
    group_runs,
    read_finished_run,
)
from kdaug.study.report.figures import figures_of, save_figure
from kdaug.study.report.tables import Table, comparison_table, format_settings, report_json, runs_as_csv, runs_table
from kdaug.study.sweep.scheduler import FAILURES, read_failures
from kdaug.training.resolve import teacher_run_recipe


def finished_runs(folders: Sequence[Path]) -> tuple[list[FinishedRun], list[str]]:
    """The finished runs at or below `folders`, and of each other one why it is left out.

    Teachers that were trained for other runs (below teachers/) are left out unless their own folder is given. Raises
    InputError for a folder that does not exist or holds no finished run.
    """
    finished, others = dict[Path, FinishedRun](), list[str]()
    for folder in folders:
        found = list(find_runs(folder))
        failures = _failures({folder, *(status.path.parent for status in found if status.path != folder)})
        for status in found:
            if status.path.parent.name == "teachers" and folder not in (status.path, status.path.parent):
                continue
            try:
                run = read_finished_run(status.path)
            except InputError as damage:
                others.append(str(damage))
                continue
            if run is not None:
                finished[status.path.resolve()] = run
            elif status.path not in failures:
                others.append(f"{status.path} is not finished")
        others += [f"{path} failed: {said}" for path, said in failures.items() if path.resolve() not in finished]
    if not finished:
        raise InputError("; ".join([f"there is no finished run below {', '.join(map(str, folders))}", *others]))
    return list(finished.values()), others


def _failures(folders: Iterable[Path]) -> dict[Path, str]:
    """What failed in the sweeps whose runs are in these folders, and why."""
    return {
        folder / name: said for folder in sorted(folders) for name, said in read_failures(folder / FAILURES).items()
    }


@dataclass(frozen=True)
class Report:
    """What is said of some runs. tables: the main one first. figures: by name. content: everything, for programs."""

    title: str
    groups: Sequence[Group]
    tables: Sequence[Table]
    notes: Sequence[str]
    figures: Sequence[tuple[str, Figure]]
    content: Mapping[str, Any]


def write_report(folders: Sequence[Path], against: Mapping[str, Any] | None, out: Path) -> tuple[str, list[str]]:
    """Writes report.md, report.json, runs.csv, figures/ and index.html to `out`; the main table in Markdown, and which
    runs are left out, and why.

    against: values of settings that gains are over; None: no teacher, or no weight for it, if that varies.
    """
    runs, left_out = finished_runs(folders)
    groups = group_runs(runs)
    against = default_baseline(groups) if against is None else _known(against, groups)
    title = f"{len(groups)} recipe{'s' if len(groups) > 1 else ''} compared"
    tables = [comparison_table(groups, against), runs_table(groups)]
    notes, content = report_notes(groups, left_out), report_json(groups, against)
    return save_report(Report(title, groups, tables, notes, list(figures_of(groups)), content), out), left_out


def save_report(report: Report, out: Path) -> str:
    """Writes the files that `write_report` does; the main table in Markdown."""
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for name, figure in report.figures:
        save_figure(figure, out / "figures", name)
    first, *others = report.tables
    parts = [
        f"# {report.title}\n",
        first.markdown(),
        "".join(f"- {note}\n" for note in report.notes),
        *(f"![{name}](figures/{name}.svg)\n" for name, _ in report.figures),
        *(f"## {table.title}\n\n{table.markdown()}" for table in others),
    ]
    atomic_write(out / "report.md", "\n".join(parts))
    atomic_write(
        out / "report.json",
        json.dumps({"title": report.title, "notes": report.notes, **report.content}, indent=1) + "\n",
    )
    atomic_write(out / "runs.csv", runs_as_csv(report.groups))
    atomic_write(out / "index.html", _page(report, out / "figures"))
    return first.markdown()


def _known(against: Mapping[str, Any], groups: Sequence[Group]) -> Mapping[str, Any]:
    for name, value in against.items():
        if name not in groups[0].varied:
            known = ", ".join(groups[0].varied) or "nothing"
            raise InputError(f"{name} does not vary between these runs; what varies: {known}")
        if all(group.varied[name] != value for group in groups):
            raise InputError(f"no run has {name}={value}")
    return against


def report_notes(groups: Sequence[Group], left_out: Sequence[str]) -> list[str]:
    """What a reader must know of the figures: which images, which machines, what is missing."""
    runs = [run for group in groups for run in group.runs]
    notes = [
        "Errors are of the final weights, in percent; ± is the standard deviation over seeds, [ ] a 95 % interval."
    ]
    images = ", ".join(sorted({f"{run.images:,}" if run.images else "so many" for run in runs}))
    kinds = {"held-out" if run.held_out else "test" if _has_test_images(run) else "validation" for run in runs}
    measured = f"They are on {images} {' and '.join(sorted(kinds))} images."
    if kinds == {"held-out"}:
        notes.append(measured)
    else:
        notes.append(
            f"{measured} Whoever chooses a setting by its figure here has chosen it by looking at them, and the figure "
            "is too good; data.holdout sets training images aside for that."
        )
    if len(kinds) > 1 or any(name in groups[0].varied for name in ("data.name", "data.content", "data.holdout")):
        notes.append("Not all are measured on the same images: do not compare those that are not.")
    same = common_settings(groups)
    told = format_settings({name: same[name] for name in _TOLD if name in same})
    notes += [f"The same in all: {told}.", *describe_teachers(runs), *describe_machines(runs)]
    notes += [f"Left out: {why}." for why in left_out]
    return notes


def _has_test_images(run: FinishedRun) -> bool:
    """A folder of photos has none: what data.val_fraction holds out is in their place."""
    return not Data(name=run.settings["data.name"]).encoded


_TOLD = (
    "data.name", "data.train_images", "student.name", "optimization.epochs", "optimization.clean_epochs",
    "views.policy", "views.magnitude", "teacher.source", "supervision.weight", "supervision.k",
    "supervision.temperature", "supervision.reading",
)  # fmt: skip
"""The settings that a reader wants first."""


def describe_teachers(runs: Sequence[FinishedRun]) -> list[str]:
    """The error of each teacher that was trained for some of the runs, if it is still there beside them."""
    found = dict[Path, None]()
    for run in (run for run in runs if run.settings["teacher.source"] == "train"):
        recipe = teacher_run_recipe(read_recipe(run.path / "recipe.yaml"), run.settings["data.content"])
        assert recipe.run.dir is not None
        found[run.path.parent / "teachers" / Path(recipe.run.dir).name] = None
    return [_teacher_in_words(place) for place in found if (place / "recipe.yaml").is_file()]


def _teacher_in_words(place: Path) -> str:
    try:
        run = read_finished_run(place)
    except InputError as damage:
        return f"Of their teacher {place.name} nothing can be said: {damage}."
    said = "is not finished" if run is None else f"errs on {run.top1_error:.2f} %"
    return f"Their teacher {place.name} {said}."


def describe_machines(runs: Sequence[FinishedRun]) -> list[str]:
    """With which seeds and on what the runs were trained, and in what of that they differ."""
    seeds = sorted({run.settings["run.seed"] for run in runs})
    told, differing = [f"seed {', '.join(map(str, seeds))}"], list[str]()
    for name in ("device", "processor", "cores", "processes", "threads", "precision", "packages"):
        seen = sorted({_in_words(value) for run in runs for value in _all_values(name, run.environment)})
        if len(seen) > 1:
            differing.append(f"The runs differ in {name}: {'; '.join(seen)}.")
        else:
            told.append(f"{name} {seen[0]}")
    return [f"All runs: {'; '.join(told)}.", *differing]


def _all_values(name: str, environment: Mapping[str, Any]) -> list[Any]:
    """As the run began, and as it went on elsewhere."""
    return [environment.get(name), *(later[name] for later in environment.get("resumed", []) if name in later)]


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {of}" for name, of in value.items())
    return "unknown" if value is None else str(value)


def _page(report: Report, figures: Path) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kdaug.study", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    first = report.groups[0].runs[0]
    pictures = ((name, (figures / f"{name}.svg").read_bytes()) for name, _ in report.figures)
    return environment.get_template("report.html.j2").render(
        report=report,
        pictures=[(name, f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}") for name, svg in pictures],
        recipe=to_yaml(read_recipe(first.path / "recipe.yaml")),
        machine=first.environment,
    )
