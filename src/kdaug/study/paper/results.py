"""The results of a study: the finished runs of each cell, and its gain next to the published one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kdaug.config import Data, Recipe, read_recipe
from kdaug.errors import InputError
from kdaug.runs import RunDirectory, recipe_differences
from kdaug.study.paper.studies import Cell, PaperStudy
from kdaug.study.report.compare import Gain, Group, gain_over
from kdaug.study.report.finished import FinishedRun, read_finished_run
from kdaug.study.sweep import read_failures
from kdaug.study.sweep.jobs import with_shared_labels
from kdaug.training.resolve import resolve


@dataclass(frozen=True)
class CellResult:
    """The finished runs of a cell, None if there are none, and our gain over its baseline next to the published one."""

    cell: Cell
    group: Group | None
    gain: Gain | None
    published_gain: float | None


def study_recipes(study: PaperStudy, seeds: Sequence[int], data: Data, device: str) -> dict[str, Recipe]:
    """The recipe of every run, by run name, seed by seed. data.root and data.download are those of `data`."""
    return {
        f"{cell.name}_seed={seed}": replace(
            cell.recipe,
            data=replace(cell.recipe.data, root=data.root, download=data.download),
            run=replace(cell.recipe.run, seed=seed, device=device),
        )
        for seed in seeds
        for cell in study.cells
    }


def cell_results(study: PaperStudy, folder: Path) -> tuple[list[CellResult], list[str]]:
    """The results of the runs in `folder`, of all seeds, and for each run that is left out the reason.

    Raises InputError if no run is finished.
    """
    groups, unfinished, left_out = dict[str, Group | None](), dict[str, set[int]](), list[str]()
    for cell in study.cells:
        groups[cell.name], unfinished[cell.name], reasons = _read_runs(cell, folder)
        left_out += reasons
    left_out += _failures(study, folder)
    if not any(groups.values()):
        reasons_text = f": {'; '.join(left_out)}" if left_out else ""
        raise InputError(f"no run of {study.title.partition(':')[0]} is finished in {folder}{reasons_text}")
    published, results = {cell.name: cell.published for cell in study.cells}, list[CellResult]()
    for cell in study.cells:
        group, gain, published_gain = groups[cell.name], None, None
        if cell.baseline is not None:
            baseline, before = groups[cell.baseline], published[cell.baseline]
            if baseline is not None and group is not None:
                gain = gain_over(baseline, group)
            if before is not None and cell.published is not None:
                published_gain = round(before - cell.published, 1)
        results.append(CellResult(cell, group, gain, published_gain))
    return results, [*_missing_runs(results, unfinished), *left_out]


def _failures(study: PaperStudy, folder: Path) -> list[str]:
    """The runs of the study that failed and have not finished since, with reasons."""
    cells = {cell.name for cell in study.cells}
    return [
        f"{folder / name} failed: {reason}"
        for name, reason in read_failures(folder).items()
        if name.rpartition("_seed=")[0] in cells and not RunDirectory(folder / name).is_finished
    ]


def _read_runs(cell: Cell, folder: Path) -> tuple[Group | None, set[int], list[str]]:
    """The finished runs of a cell, the seeds of its unfinished runs, and for all other runs why they are left out."""
    finished, unfinished, left_out = list[FinishedRun](), set[int](), list[str]()
    for file in sorted(folder.glob(f"{cell.name}_seed=*/recipe.yaml")):
        directory = file.parent
        try:
            run, recipe = read_finished_run(directory), read_recipe(file)
            differences = _differences(cell, recipe, directory)
        except InputError as error:
            left_out.append(str(error))
            continue
        if differences:
            left_out.append(f"{directory} is not a run of this study ({'; '.join(differences)})")
        elif run is None:
            unfinished.add(recipe.run.seed)
        elif finished and run.settings["data.content"] != finished[0].settings["data.content"]:
            left_out.append(f"{run.path} has other images than {finished[0].path}")
        else:
            finished.append(run)
    finished.sort(key=lambda run: run.settings["run.seed"])
    return (Group({}, tuple(finished)) if finished else None), unfinished, left_out


def _differences(cell: Cell, recipe: Recipe, directory: Path) -> list[str]:
    """How the recipe in a run directory differs from the cell's. Shared labels are no difference."""
    run = replace(cell.recipe.run, seed=recipe.run.seed, dir=str(directory))
    return recipe_differences(recipe, with_shared_labels(resolve(replace(cell.recipe, run=run)), recipe))


def _missing_runs(results: Sequence[CellResult], unfinished: Mapping[str, set[int]]) -> list[str]:
    """One line with the cells that lack a seed which another cell has or which is unfinished; empty if none do."""
    seeds = {
        result.cell.name: {run.settings["run.seed"] for run in result.group.runs} if result.group else set()
        for result in results
    }
    all_seeds = set[int]().union(*seeds.values())
    missing = {name: sorted((all_seeds | unfinished[name]) - finished) for name, finished in seeds.items()}
    texts = [f"{name} (seed {', '.join(map(str, numbers))})" for name, numbers in missing.items() if numbers]
    return [f"not finished: {', '.join(texts)}"] if texts else []
