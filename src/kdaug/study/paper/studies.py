"""The paper's tables and figures as studies: the runs that each needs, and the published results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kdaug.config import Recipe, with_settings
from kdaug.errors import InputError, did_you_mean
from kdaug.recipes import RECIPES
from kdaug.recipes.scales import Scale, at_scale
from kdaug.runs import result_settings
from kdaug.study.paper.figures import FIGURES
from kdaug.study.paper.verdicts import Comparison, Statement, all_of, every_gain, gain_grows, is_best
from kdaug.study.report.finished import is_teacher_setting
from kdaug.study.sweep.grid import Settings


@dataclass(frozen=True)
class Cell:
    """One number of a table or figure, and the recipe that reproduces it.

    name: of its runs, without the seed. row, column: its position. recipe: at the study's scale. original: the paper's
    recipe. published: top-1 error in percent, None if the paper gives none. baseline: name of the cell that its gain is
    relative to, None if it has no gain.
    """

    name: str
    row: str
    column: str
    recipe: Recipe
    original: Recipe
    published: float | None = None
    baseline: str | None = None


@dataclass(frozen=True)
class PaperStudy:
    """A table or figure of the paper at a scale, and what the paper concludes from it."""

    title: str
    scale: Scale
    cells: tuple[Cell, ...]
    statements: tuple[Statement, ...]


LABEL_ONLY, WITH_TEACHER = "label only", "with the teacher"


def paper_study(name: str, scale: Scale) -> PaperStudy:
    """The study called `name` (in STUDIES) at `scale`. Raises InputError if there is none.

    Figures 1 and 3 need no study: see `kdaug.study.paper.figures`.
    """
    if name not in STUDIES:
        names = [*STUDIES, *FIGURES]
        raise InputError(f"there is no study {name!r}{did_you_mean(name, names)} (choose one of {', '.join(names)})")
    return STUDIES[name](scale)


def _cell(
    recipe: str,
    row: str,
    column: str,
    scale: Scale,
    baseline: str | None = None,
    *,
    name: str | None = None,
    settings: Settings | None = None,
) -> Cell:
    """A cell of a named recipe. With other `settings`, the recipe's published error does not apply."""
    named, changes = RECIPES[recipe], settings or {}
    original = with_settings(named.make(), changes, recipe)
    ours = with_settings(at_scale(named.make(), scale), changes, recipe)
    return Cell(name or recipe, row, column, ours, original, None if settings else named.published_error, baseline)


def _table1(scale: Scale) -> PaperStudy:
    cells, gains = list[Cell](), dict[float, Comparison]()
    magnitudes = (0, 1, 3, 7) if scale == "smoke" else range(8)
    for magnitude in magnitudes:
        name = f"cifar100-table1-m{magnitude}"
        cells.append(_cell(name, f"M = {magnitude}", LABEL_ONLY, scale))
        cells.append(_cell(f"{name}-kd", f"M = {magnitude}", WITH_TEACHER, scale, baseline=name))
        gains[magnitude] = Comparison(f"M = {magnitude}", name, f"{name}-kd")
    over_plain = Comparison("M = 1 with the teacher over M = 0 without", "cifar100-table1-m0", "cifar100-table1-m1-kd")
    statements = (
        Statement("The teacher gains at every magnitude.", every_gain(*gains.values())),
        Statement("The gain grows with the magnitude.", gain_grows(gains)),
        Statement("Augmentation at M = 1 with the teacher beats plain training.", every_gain(over_plain)),
    )
    return PaperStudy("Table 1: gain from the teacher at each magnitude", scale, tuple(cells), statements)


_TABLE2_COLUMNS = {
    "none": "crop and flip",
    "autoaugment": "AutoAugment",
    "fast-autoaugment": "Fast AutoAugment",
    "pba": "PBA",
    "randaugment": "RandAugment",
    "kd": "AutoAugment, " + WITH_TEACHER,
}
_TABLE2_ROWS: dict[Scale, tuple[tuple[str, str], ...]] = {
    "smoke": (("cifar10", "wide_resnet28_10"),),
    "bundled": (("cifar10", "wide_resnet28_10"),),
    "cpu": (("cifar10", "wide_resnet28_10"),),
    "gpu": (("cifar10", "wide_resnet28_10"), ("cifar100", "wide_resnet28_10")),
}


def _table2(scale: Scale) -> PaperStudy:
    rows = _TABLE2_ROWS.get(scale) or _table_rows("Table 2", "-none")
    cells = list[Cell]()
    for dataset, network in rows:
        for method, column in _TABLE2_COLUMNS.items():
            name = f"{dataset}-{network}-{method}"
            baseline = f"{dataset}-{network}-autoaugment" if method == "kd" else None
            cells.append(_cell(name, f"{dataset}, {network}", column, scale, baseline))
    names = [(f"{dataset}, {network}", f"{dataset}-{network}") for dataset, network in rows]
    over_none = [Comparison(label, f"{name}-none", f"{name}-autoaugment") for label, name in names]
    best = {label: is_best(f"{name}-kd", _others(name, _TABLE2_COLUMNS)) for label, name in names}
    statements = (
        Statement("AutoAugment beats crop and flip.", every_gain(*over_none)),
        Statement("AutoAugment with the teacher is best, or level with the best.", all_of(best)),
    )
    return PaperStudy("Table 2: CIFAR, compared with other augmentation", scale, tuple(cells), statements)


def _others(name: str, columns: Mapping[str, str]) -> dict[str, str]:
    """The cells of a row of Table 2 or 3 without the teacher, by column."""
    return {column: f"{name}-{method}" for method, column in columns.items() if method != "kd"}


def _table_rows(family: str, ending: str) -> list[tuple[str, str]]:
    """Dataset and network of each row of a table, from the recipes of `family` whose names have this ending."""
    names = [name for name, named in RECIPES.items() if named.family.startswith(family) and name.endswith(ending)]
    return [(name.partition("-")[0], name.partition("-")[2].removesuffix(ending)) for name in names]


_TABLE3_COLUMNS = {
    "autoaugment": "AutoAugment",
    "randaugment": "RandAugment",
    "advprop": "AdvProp",
    "kd": "RandAugment, " + WITH_TEACHER,
}


def _table3(scale: Scale) -> PaperStudy:
    all_networks = [network for _, network in _table_rows("Table 3", "-autoaugment")]
    networks = all_networks if scale == "paper" else ["efficientnet_b0"]
    cells = list[Cell]()
    for network in networks:
        for method, column in _TABLE3_COLUMNS.items():
            baseline = f"imagenet-{network}-randaugment" if method == "kd" else None
            cells.append(_cell(f"imagenet-{network}-{method}", network, column, scale, baseline))
    if scale == "paper":
        doubled, larger = "imagenet-efficientnet_b4-doubled", "imagenet-efficientnet_b8-kd-800"
        cells.append(_cell(doubled, "efficientnet_b4, twice the epochs", _TABLE3_COLUMNS["randaugment"], scale))
        cells.append(_cell(larger, "efficientnet_b8, tested at 800 pixels", _TABLE3_COLUMNS["kd"], scale))
    best = {
        network: is_best(f"imagenet-{network}-kd", _others(f"imagenet-{network}", _TABLE3_COLUMNS))
        for network in networks
    }
    statements = (Statement("RandAugment with the teacher is best.", all_of(best)),)
    return PaperStudy("Table 3: ImageNet, compared with other augmentation", scale, tuple(cells), statements)


_FIGURE2_MAGNITUDES = (9, 15, 28, 36)
"""The paper plots magnitudes up to 36. These are the ones that it uses elsewhere."""


def _figure2(scale: Scale) -> PaperStudy:
    title = "Figure 2: training loss and validation error as augmentation becomes stronger"
    network = "imagenet-efficientnet_b0"
    recipe = f"{network}-randaugment"
    if scale != "paper":
        original = RECIPES[recipe].make()
        cells = [
            replace(cell, original=original, published=None)
            for cell in _table1(scale).cells
            if cell.column == LABEL_ONLY
        ]
        return PaperStudy(title, scale, tuple(cells), _figure2_statements(cells))
    cells = [_cell(recipe, "none", LABEL_ONLY, scale, name=f"{network}-none", settings={"views.policy": "none"})]
    for magnitude in _FIGURE2_MAGNITUDES:
        name, settings = f"{network}-m{magnitude}", {"views.magnitude": float(magnitude)}
        cells.append(_cell(recipe, f"M = {magnitude}", LABEL_ONLY, scale, name=name, settings=settings))
    return PaperStudy(title, scale, tuple(cells), _figure2_statements(cells))


def _figure2_statements(cells: Sequence[Cell]) -> tuple[Statement, ...]:
    """About cells with rising magnitude, the first without augmentation."""
    none, mildest, *_, strongest = (cell.name for cell in cells)
    return (
        Statement("Mild augmentation lowers the error.", every_gain(Comparison(cells[1].row, none, mildest))),
        Statement("The strongest augmentation raises it.", every_gain(Comparison(cells[-1].row, strongest, none))),
    )


_FIGURE4 = (*((weight, 10) for weight in (0.1, 0.2, 0.5, 1.0, 2.0)), *((0.5, k) for k in (2, 5, 25, 50)))
"""(λ, K) of the paper's points: λ varies at K = 10, K varies at λ = 0.5."""
_FIGURE4_ERRORS = {(0.1, 10): 22.3, (0.5, 5): 22.0}
"""The errors that the paper's text gives (accuracies 77.7 and 78.0). The baseline is 77.4 in Table 3."""


def _figure4(scale: Scale) -> PaperStudy:
    """At the scale "paper" on ImageNet; else on CIFAR-100 at M = 5 of the geometric space, where the gain is large."""
    published = "imagenet-efficientnet_b0-randaugment", "imagenet-efficientnet_b0-kd"
    baseline, with_teacher = published if scale == "paper" else ("cifar100-table1-m5", "cifar100-table1-m5-kd")
    points = (point for point in _FIGURE4 if scale != "smoke" or point in ((0.5, 10), (2.0, 10), (0.5, 2)))
    cells = [_cell(baseline, "no teacher", "error", scale)]
    for weight, k in points:
        row, name = f"λ = {weight:g}, K = {k}", f"{with_teacher}-weight{weight:g}-k{k}"
        settings = {"supervision.weight": weight, "supervision.k": k}
        cell = _cell(with_teacher, row, "error", scale, baseline, name=name, settings=settings)
        cells.append(replace(cell, published=_FIGURE4_ERRORS.get((weight, k))))
    if scale != "paper":
        cells = [_with_original(cell, published[cell.baseline is not None]) for cell in cells]
    gains = [Comparison(cell.row, baseline, cell.name) for cell in cells[1:]]
    statements = (Statement("The teacher gains with every λ and K.", every_gain(*gains)),)
    return PaperStudy("Figure 4: effect of λ and K", scale, tuple(cells), statements)


def _with_original(cell: Cell, recipe: str) -> Cell:
    """A cell that reproduces another experiment of the paper: its original is `recipe` with the cell's λ and K."""
    original = RECIPES[recipe].make()
    if cell.baseline is not None:
        ours = cell.recipe.supervision
        original = replace(original, supervision=replace(original.supervision, weight=ours.weight, k=ours.k))
    return replace(cell, original=original, published=None)


def _section34(scale: Scale) -> PaperStudy:
    network, strong = "cifar100-wide_resnet28_10", "cifar100-shake_shake26_2x96d-autoaugment"
    plain, clean = f"{network}-autoaugment", "cifar100-clean-epochs"
    first, second = "Wide-ResNet under AutoAugment", "the same, then clean epochs"
    third = "a better network, with that Wide-ResNet as teacher"
    cells = (
        _cell(plain, first, LABEL_ONLY, scale),
        _cell(f"{network}-kd", first, WITH_TEACHER, scale, baseline=plain),
        _cell(clean, second, LABEL_ONLY, scale, baseline=plain),
        _cell(f"{clean}-kd", second, f"{WITH_TEACHER} in the clean epochs", scale, baseline=clean),
        _cell(strong, third, LABEL_ONLY, scale),
        _cell("cifar100-weak-teacher", third, WITH_TEACHER, scale, baseline=strong),
    )
    weak = Comparison("a better network", strong, "cifar100-weak-teacher")
    statements = (
        Statement("A teacher that is worse than its student helps.", every_gain(weak)),
        Statement("Clean epochs gain.", every_gain(Comparison("without teacher", plain, clean))),
        Statement(
            "Clean epochs with the teacher beat clean epochs.", every_gain(Comparison("clean", clean, f"{clean}-kd"))
        ),
    )
    return PaperStudy("Section 3.4: a weak teacher, and clean epochs at the end", scale, cells, statements)


STUDIES: dict[str, Callable[[Scale], PaperStudy]] = {
    "table1": _table1,
    "table2": _table2,
    "table3": _table3,
    "figure2": _figure2,
    "figure4": _figure4,
    "section3.4": _section34,
}


def paper_differences(cells: Iterable[Cell]) -> dict[str, list[tuple[Any, Any]]]:
    """Settings that differ from the paper's: for each, the distinct pairs (value in the paper, value in the cell).

    data.root is left out, and so are teacher settings of cells without a teacher.
    """
    differences = dict[str, list[tuple[Any, Any]]]()
    for cell in cells:
        paper, ours = result_settings(cell.original), result_settings(cell.recipe)
        has_teacher = {paper["teacher.source"], ours["teacher.source"]} != {"none"}
        for name in paper:
            if name == "data.root" or (is_teacher_setting(name) and not has_teacher):
                continue
            pair = paper[name], ours[name]
            if pair[0] != pair[1] and pair not in differences.setdefault(name, []):
                differences[name].append(pair)
    return {name: pairs for name, pairs in differences.items() if pairs}
