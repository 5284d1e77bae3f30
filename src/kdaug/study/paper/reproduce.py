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
from kdaug.runs import RunDirectory, recipe_differences
from kdaug.study.paper.studies import Cell, PaperStudy, paper_differences
from kdaug.study.report.compare import FinishedRun, Gain, Group, gain_over, group_runs, read_finished_run
from kdaug.study.report.curves import style_axes
from kdaug.study.report.figures import figures_of
from kdaug.study.report.tables import Table, comparison_table, format_error, format_gain, report_json, runs_table, shown
from kdaug.study.report.write import Report, report_notes, save_report
from kdaug.study.sweep.jobs import with_shared_labels
from kdaug.study.sweep.scheduler import FAILURES, read_failures
from kdaug.training.resolve import resolve


@dataclass(frozen=True)
class CellResult:
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


def cell_results(study: PaperStudy, folder: Path) -> tuple[list[CellResult], list[str]]:
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
    results = [
        CellResult(
            cell,
            groups[cell.name],
            _gain(groups.get(cell.baseline), groups[cell.name]) if cell.baseline else None,
            _difference(published.get(cell.baseline), cell.published) if cell.baseline else None,
        )
        for cell in study.cells
    ]
    return results, [*_missing(results, begun), *left_out]


def _failures(study: PaperStudy, folder: Path) -> list[str]:
    """What failed of a study and is not finished yet, and why."""
    cells = {cell.name for cell in study.cells}
    return [
        f"{folder / name} failed: {said}"
        for name, said in read_failures(folder / FAILURES).items()
        if name.rpartition("_seed=")[0] in cells and not RunDirectory(folder / name).is_finished
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
    return recipe_differences(there, with_shared_labels(resolve(replace(cell.recipe, run=run)), there))


def _missing(results: Sequence[CellResult], begun: Mapping[str, set[int]]) -> list[str]:
    """The cells that are not finished, with the seeds that they have `begun` or others have, in a line if there are."""
    of_cell = {
        result.cell.name: {run.settings["run.seed"] for run in result.group.runs} if result.group else set()
        for result in results
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
    results, left_out = cell_results(study, folder)
    groups = group_runs(run for result in results if result.group is not None for run in result.group.runs)
    figures = list(figures_of(groups))
    if any(result.gain is not None for result in results):
        figures.insert(0, ("gains", gains_figure(results)))
    report = Report(
        f"{study.title} ({study.scale} scale)",
        groups,
        [paper_comparison_table(results), comparison_table(groups, {}), runs_table(groups)],
        [*scale_notes(study), *report_notes(groups, left_out)],
        figures,
        _content(study, results, groups),
    )
    return save_report(report, out), left_out


def paper_comparison_table(results: Sequence[CellResult]) -> Table:
    """A row for every cell: ours, the paper's, and the gains of both."""
    names = {result.cell.name: result.cell for result in results}
    rows = []
    for result in results:
        cell, group = result.cell, result.group
        ours = "" if group is None else format_error(group)
        runs = "0" if group is None else str(len(group.runs))
        over = _over(cell, names[cell.baseline]) if cell.baseline else ""
        published = "" if cell.published is None else f"{cell.published:.1f}"
        gains = (
            format_gain(result.gain, group),
            "" if result.published_gain is None else f"{result.published_gain:+.1f}",
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
    """What the paper claims, and how far our runs are from its own."""
    notes = [f"The paper: {sentence}" for sentence in study.claims]
    changed = [
        f"{name} {', '.join(f'{_value(here)} (the paper: {_value(there)})' for there, here in pairs)}"
        for name, pairs in paper_differences(study.cells).items()
    ]
    if changed:
        notes.append(f"{_SHOWS[study.scale]} What differs: {'; '.join(changed)}.")
    return notes


def _value(value: Any) -> str:
    return "not set" if value is None else shown(value)


def gains_figure(results: Sequence[CellResult]) -> Figure:
    """Points gained in each cell that is over another: ours, with the 95 % interval, and the paper's."""
    there = [result for result in results if result.gain is not None]
    figure = Figure(figsize=(max(5.0, 1.1 * len(there) + 2), 4), layout="constrained")
    axes = figure.subplots()
    places = range(len(there))
    ours = [result.gain for result in there if result.gain is not None]
    spread = [math.nan if gain.half_width is None else gain.half_width for gain in ours]
    axes.errorbar(places, [gain.mean for gain in ours], spread, fmt="o", capsize=3, label="ours")
    paper = [(place, o.published_gain) for place, o in zip(places, there, strict=True) if o.published_gain is not None]
    if paper:
        axes.plot(*zip(*paper, strict=True), "x", color="grey", label="the paper's")
    axes.axhline(0, color="black", lw=0.8)
    axes.set_xticks(places, [textwrap.fill(result.cell.row, 14) for result in there])
    axes.set_ylabel("points gained")
    style_axes(axes)
    axes.legend(frameon=False)
    return figure


def _content(study: PaperStudy, results: Sequence[CellResult], groups: Sequence[Group]) -> Mapping[str, Any]:
    return {
        "scale": study.scale,
        "cells": [
            {
                "name": result.cell.name,
                "row": result.cell.row,
                "column": result.cell.column,
                "error": None if result.group is None else result.group.mean,
                "deviation": None if result.group is None else result.group.deviation,
                "runs": 0 if result.group is None else len(result.group.runs),
                "published": result.cell.published,
                "over": result.cell.baseline,
                "gain": None if result.gain is None else asdict(result.gain),
                "published_gain": result.published_gain,
            }
            for result in results
        ],
        "differences": {
            name: [{"paper": there, "ours": here} for there, here in pairs]
            for name, pairs in paper_differences(study.cells).items()
        },
        **report_json(groups, {}),
    }
