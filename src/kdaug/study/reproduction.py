"""The paper's figures beside ours, cell by cell."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from kdaug.config import Data, Recipe, read_recipe
from kdaug.errors import InputError
from kdaug.recipes.scales import Scale
from kdaug.study.comparison import FinishedRun, Gain, Group, gain_over, groups_of, read_finished_run
from kdaug.study.curves import plain_axes
from kdaug.study.figures import figures_of
from kdaug.study.jobs import with_shared_labels
from kdaug.study.paper import Cell, PaperStudy, differences
from kdaug.study.report import Report, remarks, save_report
from kdaug.study.sweep import FAILURES, read_failures
from kdaug.study.tables import Table, as_json, comparison_table, error_in_words, gain_in_words, runs_table, shown
from kdaug.training.resolving import resolve
from kdaug.training.run_directory import RunDirectory
from kdaug.training.run_directory import differences as differences_of


@dataclass(frozen=True)
class Outcome:
    """A cell, and what came out: its runs (None while none is finished) and the gain over the cell that it is over."""

    cell: Cell
    group: Group | None
    gain: Gain | None
    published_gain: float | None


def recipes_of(study: PaperStudy, seeds: Sequence[int], data: Data, device: str) -> dict[str, Recipe]:
    """The recipe of every run by its name, one seed after the other; root and download as in `data`."""
    return {
        _run_name(cell, seed): replace(
            cell.recipe,
            data=replace(cell.recipe.data, root=data.root, download=data.download),
            run=replace(cell.recipe.run, seed=seed, device=device),
        )
        for seed in seeds
        for cell in study.cells
    }


def _run_name(cell: Cell, seed: int) -> str:
    return f"{cell.name}_seed={seed}"


def outcomes_of(study: PaperStudy, folder: Path) -> tuple[list[Outcome], list[str]]:
    """What the runs below `folder` came to, of whatever seeds, and of each cell's that does not count why.

    InputError if none is finished.
    """
    groups, begun, left_out = dict[str, Group | None](), dict[str, set[int]](), list[str]()
    for cell in study.cells:
        groups[cell.name], begun[cell.name], others = _group(cell, folder)
        left_out += others
    left_out += _failures(study, folder)
    if not any(groups.values()):
        why = f": {'; '.join(left_out)}" if left_out else ""
        raise InputError(f"no run of {study.title.partition(':')[0]} is finished in {folder}{why}")
    published = {cell.name: cell.published for cell in study.cells}
    outcomes = [
        Outcome(
            cell,
            groups[cell.name],
            _gain(groups.get(cell.over), groups[cell.name]) if cell.over else None,
            _difference(published.get(cell.over), cell.published) if cell.over else None,
        )
        for cell in study.cells
    ]
    return outcomes, [*_missing(outcomes, begun), *left_out]


def _failures(study: PaperStudy, folder: Path) -> list[str]:
    """What failed of a study and is not finished yet, and why."""
    cells = {cell.name for cell in study.cells}
    return [
        f"{folder / name} failed: {said}"
        for name, said in read_failures(folder / FAILURES).items()
        if name.rpartition("_seed=")[0] in cells and not RunDirectory(folder / name).finished
    ]


def _group(cell: Cell, folder: Path) -> tuple[Group | None, set[int], list[str]]:
    """The finished runs of a cell, by seed; the seeds of those that are not; of all others why they do not count."""
    finished, begun, left_out = list[FinishedRun](), set[int](), list[str]()
    for recipe in sorted(folder.glob(f"{cell.name}_seed=*/recipe.yaml")):
        try:
            run = read_finished_run(recipe.parent)
            there = read_recipe(recipe)
            changed = _not_as(cell, there, recipe.parent)
        except InputError as damage:
            left_out.append(str(damage))
            continue
        if changed:
            left_out.append(f"{recipe.parent} is no run of this study ({'; '.join(changed)})")
        elif run is None:
            begun.add(there.run.seed)
        elif finished and run.settings["data.content"] != finished[0].settings["data.content"]:
            left_out.append(f"{run.path} is on other images than {finished[0].path}")
        else:
            finished.append(run)
    finished.sort(key=lambda run: run.settings["run.seed"])
    return (Group({}, tuple(finished)) if finished else None), begun, left_out


def _not_as(cell: Cell, there: Recipe, directory: Path) -> list[str]:
    """What of the recipe `there` in a run directory is not the cell's; where answers are stored does not matter."""
    run = replace(cell.recipe.run, seed=there.run.seed, dir=str(directory))
    return differences_of(there, with_shared_labels(resolve(replace(cell.recipe, run=run)), there))


def _missing(outcomes: Sequence[Outcome], begun: Mapping[str, set[int]]) -> list[str]:
    """The cells that are not finished, with the seeds that they have `begun` or others have, in a line if there are."""
    of_cell = {
        outcome.cell.name: {run.settings["run.seed"] for run in outcome.group.runs} if outcome.group else set()
        for outcome in outcomes
    }
    seeds = set[int]().union(*of_cell.values())
    missing = {name: sorted((seeds | begun[name]) - there) for name, there in of_cell.items()}
    lacking = [f"{name} (seed {', '.join(map(str, those))})" for name, those in missing.items() if those]
    return [f"{', '.join(lacking)}, which are not finished"] if lacking else []


def _gain(baseline: Group | None, group: Group | None) -> Gain | None:
    return gain_over(baseline, group) if baseline is not None and group is not None else None


def _difference(baseline: float | None, error: float | None) -> float | None:
    return None if baseline is None or error is None else round(baseline - error, 1)


def write_reproduction(study: PaperStudy, folder: Path, out: Path) -> tuple[str, list[str]]:
    """Writes a report on the runs below `folder` to `out`; its main table, the paper beside ours, in Markdown.

    And what there is, or should be, that is not in it.
    """
    outcomes, left_out = outcomes_of(study, folder)
    groups = groups_of(run for outcome in outcomes if outcome.group is not None for run in outcome.group.runs)
    figures = list(figures_of(groups))
    if any(outcome.gain is not None for outcome in outcomes):
        figures.insert(0, ("gains", gains_figure(outcomes)))
    report = Report(
        f"{study.title} ({study.scale} scale)",
        groups,
        [beside(outcomes), comparison_table(groups, {}), runs_table(groups)],
        [*scale_notes(study), *remarks(groups, left_out)],
        figures,
        _content(study, outcomes, groups),
    )
    return save_report(report, out), left_out


def beside(outcomes: Sequence[Outcome]) -> Table:
    """A row for every cell: ours, the paper's, and the gains of both."""
    names = {outcome.cell.name: outcome.cell for outcome in outcomes}
    rows = []
    for outcome in outcomes:
        cell, group = outcome.cell, outcome.group
        ours = "" if group is None else error_in_words(group)
        runs = "0" if group is None else str(len(group.runs))
        over = _over(cell, names[cell.over]) if cell.over else ""
        published = "" if cell.published is None else f"{cell.published:.1f}"
        gains = (
            gain_in_words(outcome.gain, group),
            "" if outcome.published_gain is None else f"{outcome.published_gain:+.1f}",
        )
        rows.append((cell.row, cell.column, ours, runs, published, *gains, over))
    heads = ("", "", "our error, %", "runs", "the paper's", "points gained", "the paper's", "over")
    return Table("Beside the paper", heads, 2, tuple(rows))


def _over(cell: Cell, baseline: Cell) -> str:
    return baseline.row if baseline.column == cell.column else baseline.column


_SMALLER = "Ours are at a smaller scale, and no claim to the paper's figures:"
_SHOWS: dict[Scale, str] = {
    "smoke": f"{_SMALLER} they show that all of it works. Which way an effect points, so few steps cannot show.",
    "cpu": f"{_SMALLER} they show effects, which gains and in what order, as far as the seeds agree.",
    "gpu": f"{_SMALLER} they show effects, which gains and in what order, as far as the seeds agree.",
    "paper": "Ours are not all as published.",
}


def scale_notes(study: PaperStudy) -> list[str]:
    """What the paper says, and how far our runs are from its own."""
    notes = [f"The paper: {sentence}" for sentence in study.says]
    changed = [
        f"{name} {', '.join(f'{_value(here)} (the paper: {_value(there)})' for there, here in pairs)}"
        for name, pairs in differences(study.cells).items()
    ]
    if changed:
        notes.append(f"{_SHOWS[study.scale]} What differs: {'; '.join(changed)}.")
    return notes


def _value(value: Any) -> str:
    return "not set" if value is None else shown(value)


def gains_figure(outcomes: Sequence[Outcome]) -> Figure:
    """Points gained in each cell that is over another: ours, with the 95 % interval, and the paper's."""
    there = [outcome for outcome in outcomes if outcome.gain is not None]
    figure = Figure(figsize=(max(5.0, 1.1 * len(there) + 2), 4), layout="constrained")
    axes = figure.subplots()
    places = range(len(there))
    ours = [outcome.gain for outcome in there if outcome.gain is not None]
    spread = [math.nan if gain.half_width is None else gain.half_width for gain in ours]
    axes.errorbar(places, [gain.mean for gain in ours], spread, fmt="o", capsize=3, label="ours")
    paper = [(place, o.published_gain) for place, o in zip(places, there, strict=True) if o.published_gain is not None]
    if paper:
        axes.plot(*zip(*paper, strict=True), "x", color="grey", label="the paper's")
    axes.axhline(0, color="black", lw=0.8)
    axes.set_xticks(places, [textwrap.fill(outcome.cell.row, 14) for outcome in there])
    axes.set_ylabel("points gained")
    plain_axes(axes)
    axes.legend(frameon=False)
    return figure


def _content(study: PaperStudy, outcomes: Sequence[Outcome], groups: Sequence[Group]) -> Mapping[str, Any]:
    return {
        "scale": study.scale,
        "cells": [
            {
                "name": outcome.cell.name,
                "row": outcome.cell.row,
                "column": outcome.cell.column,
                "error": None if outcome.group is None else outcome.group.mean,
                "deviation": None if outcome.group is None else outcome.group.deviation,
                "runs": 0 if outcome.group is None else len(outcome.group.runs),
                "published": outcome.cell.published,
                "over": outcome.cell.over,
                "gain": None if outcome.gain is None else asdict(outcome.gain),
                "published_gain": outcome.published_gain,
            }
            for outcome in outcomes
        ],
        "differences": {
            name: [{"paper": there, "ours": here} for there, here in pairs]
            for name, pairs in differences(study.cells).items()
        },
        **as_json(groups, {}),
    }
