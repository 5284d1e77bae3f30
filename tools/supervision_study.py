"""Compares supervision methods on the bundled characters, or with --scale cpu on 4,000 images of CIFAR.

    python tools/supervision_study.py FOLDER [--seeds 0 1 2] [--magnitudes 1 3 5 7] [--only METHOD ...]
    python tools/supervision_study.py FOLDER --scale cpu --root data [--dataset cifar-100]
    python tools/supervision_study.py FOLDER --teacher-network resnet10t   # a teacher of another family
    python tools/supervision_study.py FOLDER --choose [--only METHOD ...]   # tries TRIED on held-out training images
    python tools/supervision_study.py FOLDER --table results/NAME           # writes tables of finished runs

Data, network, teacher and training are those of `kdaug reproduce table1` at the scale. For each seed and magnitude
the teacher's labels are stored once, and one student is trained per method with the same images, initial weights and
steps, and the same views where the method does not change them. Finished runs are skipped and stopped runs are resumed.

Weight and temperature of each method (CHOSEN) were chosen by --choose: four combinations each, one seed that is not
among those of the study, errors on training images that neither teacher nor student is trained on. Methods that are not
`tuned` have published settings, or those of supervision.method robust, everywhere.
"""

import argparse
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from rich.console import Console
from study_tables import gain, mean

from kdaug.config import Crop, Recipe, Supervision, Teacher, with_method
from kdaug.config.datasets import DatasetName
from kdaug.config.teacher_recipe import derive_teacher_recipe
from kdaug.inspection import EvidenceRequest, recommend
from kdaug.recipes import named_recipe
from kdaug.recipes.scales import Scale, at_scale
from kdaug.runs import RunDirectory, read_metrics
from kdaug.training import train
from kdaug.training.labeling import LabelRequest, label_views
from kdaug.views.policies import spec_with_magnitude

TRIED = tuple(product((1.0, 3.0), (2.0, 4.0)))  # weights and temperatures
CHOICE_MAGNITUDE, CHOICE_SEED = 5.0, 10
BASELINE = "top-k"


@dataclass(frozen=True)
class Method:
    """A supervision, its teachers and the views.

    tuned: whether weight and temperature are chosen on held-out images. teachers: 0 for none; of more than one, which
    differ in their seeds, the probabilities are averaged. folds: number of cross-fitted teachers. per_image: whether
    the magnitude depends on the image, by what three cross-fitted teachers predict for it.
    """

    supervision: Supervision
    tuned: bool = True
    teachers: int = 1
    folds: int | None = None
    crop: Crop = "pad"
    per_image: bool = False

    @property
    def labels_suffix(self) -> str:
        """What tells its stored labels from those of one teacher for the same views at one magnitude."""
        several = f"-{self.teachers}-teachers" if self.teachers > 1 else ""
        folds = "" if self.folds is None else f"-folds{self.folds}"
        return f"{'-per-image' if self.per_image else ''}{several}{folds}"

    def with_choice(self, weight: float, temperature: float) -> "Method":
        return replace(self, supervision=replace(self.supervision, weight=weight, temperature=temperature))


TOP_K = Supervision(weight=1.0, k=5, temperature=2.0)  # the paper's for CIFAR-100; --choose tries these and others
ALL = replace(TOP_K, k=None)
DECOUPLED = replace(TOP_K, divergence="decoupled")
ROBUST = with_method(TOP_K, "robust")
METHODS = {
    "label": Method(Supervision(), tuned=False, teachers=0),
    "soft-augmentation": Method(Supervision(visible_power=2.0), tuned=False, teachers=0, crop="soft"),
    "top-k": Method(TOP_K),
    "all": Method(ALL),
    "mass": Method(replace(ALL, mass=0.95, reading="grouped")),
    "trust-all": Method(replace(ALL, label_trust=True)),
    "decoupled": Method(DECOUPLED),
    "decoupled-trust": Method(replace(DECOUPLED, label_trust=True)),
    "top-k-standardized": Method(replace(TOP_K, standardize_logits=True)),
    "all-standardized": Method(replace(ALL, standardize_logits=True)),
    "decoupled-standardized": Method(replace(DECOUPLED, standardize_logits=True)),
    "dist": Method(replace(ALL, divergence="dist")),
    "kd-standardized": Method(with_method(TOP_K, "kd-standardized"), tuned=False),
    "robust": Method(ROBUST, tuned=False),
    "robust-two-teachers": Method(ROBUST, tuned=False, teachers=2),
    "robust-per-image": Method(ROBUST, tuned=False, per_image=True),
    "min-confidence": Method(replace(ALL, label_weight=0.0, label_smoothing=0.1, min_confidence=0.2)),
    "top-k-folds": Method(TOP_K, folds=3),
}
CHOSEN: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "omniglot": {
        "top-k": (1.0, 2.0),
        "all": (3.0, 2.0),
        "mass": (3.0, 2.0),
        "trust-all": (3.0, 4.0),
        "decoupled": (1.0, 2.0),
        "decoupled-trust": (1.0, 2.0),
        "all-standardized": (3.0, 4.0),
        "decoupled-standardized": (1.0, 2.0),
        "dist": (3.0, 2.0),
        "min-confidence": (3.0, 2.0),
    },
    "cifar-100": {"top-k": (3.0, 2.0), "all": (3.0, 4.0)},
    "cifar-10": {
        "top-k": (3.0, 2.0),
        "all": (3.0, 4.0),
        "dist": (3.0, 4.0),
        "top-k-folds": (3.0, 2.0),
    },
}
"""Weight and temperature of each method with the lowest error of --choose, by dataset. Not chosen: those of
cross-fitted teachers on CIFAR-10, as for one teacher, and those of all classes on CIFAR-100, as on CIFAR-10."""


@dataclass(frozen=True)
class Setting:
    """The scale, where CIFAR is, and what differs from the scale: the dataset and the network of the teacher."""

    scale: Scale
    root: str
    dataset: DatasetName | None
    teacher_network: str | None


def base(setting: Setting, magnitude: float, seed: int) -> Recipe:
    """The recipe that all students of one magnitude and seed share."""
    recipe = at_scale(named_recipe("cifar100-table1-m1-kd"), setting.scale)
    return replace(
        recipe,
        data=replace(recipe.data, root=setting.root, name=setting.dataset or recipe.data.name),
        teacher=replace(recipe.teacher, network=setting.teacher_network or recipe.teacher.network),
        views=replace(recipe.views, policy=spec_with_magnitude(recipe.views.policy, magnitude), seed=seed),
        run=replace(recipe.run, seed=seed, threads=1, device="cpu", evaluate_train=False),
    )


def has_settings(name: str, dataset: str) -> bool:
    """Whether the method can be trained on `dataset`: it is not tuned, or its weight and temperature are in CHOSEN."""
    return not METHODS[name].tuned or name in CHOSEN[dataset]


def run_method(recipe: Recipe, method: Method, labels: Path, run: Path) -> None:
    """Trains a student, after its teachers' labels have been stored. labels: the store, but for the method's suffix."""
    recipe = replace(recipe, run=replace(recipe.run, dir=str(run), resume=True))
    recipe = replace(recipe, views=replace(recipe.views, crop=method.crop))
    if method.per_image:
        factors = magnitude_per_image(recipe, run.parent / "factors.safetensors")
        recipe = replace(recipe, views=replace(recipe.views, magnitude_factors=str(factors)))
    teacher = Teacher()
    if method.teachers:
        taught = replace(recipe, teacher=teacher_of(recipe, method, run.parent), supervision=Supervision(k=None))
        store = labels.with_name(labels.name + method.labels_suffix)
        label_views(taught, store, LabelRequest(temperatures=(2.0, 4.0), precision="float32"))
        teacher = Teacher(labels=str(store))
    train(replace(recipe, teacher=teacher, supervision=method.supervision))


def teacher_of(recipe: Recipe, method: Method, folder: Path) -> Teacher:
    """The teacher of the method; several that are averaged are trained in `folder` first."""
    if method.teachers == 1:
        return replace(recipe.teacher, folds=method.folds)
    sources = (train_teacher(recipe, seed, folder / "teachers") for seed in range(method.teachers))
    return Teacher(",".join(sources))


def train_teacher(recipe: Recipe, seed: int, folder: Path) -> str:
    """The source of the recipe's teacher with another seed, which is trained unless it is finished."""
    own = derive_teacher_recipe(replace(recipe, teacher=replace(recipe.teacher, seed=seed)))
    return f"run:{train(replace(own, run=replace(own.run, dir=str(folder / f'seed-{seed}')))).directory}"


def magnitude_per_image(recipe: Recipe, file: Path) -> Path:
    """The file with factors of the magnitude, which is written unless it exists."""
    if not file.exists():
        taught = replace(recipe, teacher=replace(recipe.teacher, folds=3))
        recommend(taught, EvidenceRequest(magnitudes=(1.0,)), Console(stderr=True), per_image=file)
    return file


def study(args: argparse.Namespace, setting: Setting) -> None:
    """Trains the runs that are not finished."""
    for seed, magnitude, name in product(args.seeds, args.magnitudes, args.only):
        case = f"m{magnitude:g}-s{seed}"
        recipe = base(setting, magnitude, seed)
        method = METHODS[name]
        if method.tuned:
            method = method.with_choice(*CHOSEN[recipe.data.name][name])
        run_method(recipe, method, args.folder / f"labels-{case}", args.folder / f"{name}-{case}")


def choose(args: argparse.Namespace, setting: Setting) -> None:
    """Trains the methods with teacher with all TRIED settings, without half of the training images."""
    recipe = base(setting, CHOICE_MAGNITUDE, CHOICE_SEED)
    recipe = replace(recipe, data=replace(recipe.data, holdout=0.5))
    for name, tried in product(args.only, TRIED):
        if METHODS[name].tuned:
            run = args.folder / f"choice-{name}-w{tried[0]:g}-t{tried[1]:g}"
            run_method(recipe, METHODS[name].with_choice(*tried), args.folder / "labels-choice", run)


def errors_of(folder: Path) -> dict[str, float]:
    """Top-1 error in percent of every finished run, by the run's name."""
    errors = {}
    for run in sorted(folder.iterdir()):
        if RunDirectory(run).is_finished:
            errors[run.name] = read_metrics(run)[-1]["top1_error"]
    return errors


def table(errors: dict[str, float], methods: Iterable[str], magnitudes: Iterable[float]) -> str:
    """For each magnitude: mean errors of the methods, their standard deviations, and gains over BASELINE."""
    lines = []
    for magnitude in magnitudes:
        lines += [
            f"M = {magnitude:g}",
            "",
            f"| method | error, % | seeds | gain over {BASELINE} |",
            "|---|--:|--:|--:|",
        ]
        baseline = errors_of_seeds(errors, f"{BASELINE}-m{magnitude:g}-s")
        for name in methods:
            by_seed = errors_of_seeds(errors, f"{name}-m{magnitude:g}-s")
            if by_seed:
                over_baseline = "" if name == BASELINE else gain(baseline, by_seed)
                cells = (name, mean(by_seed.values()), str(len(by_seed)), over_baseline)
                lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def errors_of_seeds(errors: dict[str, float], prefix: str) -> dict[str, float]:
    """The errors of the runs whose name is `prefix` and a seed, by seed."""
    return {run.removeprefix(prefix): error for run, error in errors.items() if run.startswith(prefix)}


def choice_table(errors: dict[str, float], methods: Iterable[str]) -> str:
    """Errors on held-out training images for all TRIED settings."""
    names = [(f"w{weight:g}-t{temperature:g}", weight, temperature) for weight, temperature in TRIED]
    head = ("method", *(f"λ = {weight:g}, T = {temperature:g}" for _, weight, temperature in names))
    lines = [head, ("---", *["--:"] * len(names))]
    for method in methods:
        tried = [errors.get(f"choice-{method}-{name}") for name, _, _ in names]
        if any(error is not None for error in tried):
            lines.append((method, *("-" if error is None else f"{error:.2f}" for error in tried)))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--magnitudes", type=float, nargs="+", default=[1.0, 3.0, 5.0, 7.0])
    parser.add_argument(
        "--only", nargs="+", choices=METHODS, metavar="METHOD", help="default: all with CHOSEN settings"
    )
    parser.add_argument("--scale", choices=("bundled", "cpu"), default="bundled")
    parser.add_argument("--root", default="data", metavar="DIR", help="folder of CIFAR, for scale cpu")
    parser.add_argument("--dataset", choices=("cifar-10", "cifar-100"), help="default: that of the scale")
    parser.add_argument("--teacher-network", metavar="NAME", help="default: that of the scale")
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--table", type=Path, metavar="DIR", help="write table.md, choice.md and errors.json to DIR")
    args = parser.parse_args()
    setting = Setting(args.scale, args.root, args.dataset, args.teacher_network)
    dataset = base(setting, CHOICE_MAGNITUDE, CHOICE_SEED).data.name
    if args.only is None:
        every = args.choose or args.table is not None
        args.only = [name for name in METHODS if every or has_settings(name, dataset)]
    missing = [name for name in args.only if not has_settings(name, dataset)]
    if missing and not args.choose and args.table is None:
        parser.error(f"{', '.join(missing)}: not in CHOSEN for {dataset}; run --choose and add the best settings")
    if args.choose:
        choose(args, setting)
    elif args.table is None:
        study(args, setting)
    errors = errors_of(args.folder)
    if args.table is not None:
        args.table.mkdir(parents=True, exist_ok=True)
        (args.table / "table.md").write_text(table(errors, args.only, args.magnitudes))
        if any(run.startswith("choice-") for run in errors):
            (args.table / "choice.md").write_text(choice_table(errors, args.only))
        (args.table / "errors.json").write_text(json.dumps(errors, indent=1) + "\n")
    print(choice_table(errors, args.only) if args.choose else table(errors, args.only, args.magnitudes), end="")


if __name__ == "__main__":
    main()
