"""A run in words, for its model card: network, training, teacher, data and error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdaug.config import Network, Optimization, Recipe, Supervision, Views, split_source, teacher_network
from kdaug.data import Dataset
from kdaug.export.source import ExportSource
from kdaug.inference import LoadedRun
from kdaug.networks import split_digest
from kdaug.runs import read_environment, read_metrics
from kdaug.training.evaluation import describe_errors
from kdaug.training.resolve import teacher_run_names


@dataclass(frozen=True)
class RunSummary:
    """Sentences in Markdown. training, data: name to sentence."""

    training: dict[str, str]
    teacher: str
    data: dict[str, str]
    error: str


def run_summary(source: ExportSource, run: LoadedRun, dataset: Dataset | None) -> RunSummary:
    """The summary of `run`. dataset: its images as they are now, if they were read.

    Raises InputError if the metrics or the environment of the run are damaged.
    """
    content = read_environment(run.directory).get("data")
    if dataset is not None and content not in (None, dataset.content):
        dataset = None  # not the images of the run any more
    return RunSummary(
        describe_training(run.recipe),
        _describe_teacher(run, content),
        _describe_data(run, dataset),
        _describe_error(source, run, dataset),
    )


def has_teacher(recipe: Recipe) -> bool:
    """Whether a run of `recipe` has soft labels, from a teacher or a label store."""
    return recipe.teacher.source != "none" or recipe.teacher.labels is not None


def describe_training(recipe: Recipe) -> dict[str, str]:
    """What `recipe` does, in words."""
    return {
        "start": _describe_start(recipe.student),
        "optimization": _describe_optimization(recipe.optimization),
        "views": _describe_views(recipe.views),
        "loss": _describe_loss(recipe.supervision, has_teacher(recipe)),
        "seed": str(recipe.run.seed),
    }


def _describe_start(student: Network) -> str:
    """The initial weights, without the folders and the digest of their file."""
    source = student.initial_weights
    if source is None:
        return "random weights"
    kind, _, location = split_digest(source)[0].partition(":")
    if kind == "timm":
        return f"timm's published weights `{location}`"
    return f"the weights of the {kind} `{Path(location).name}`"


def _describe_optimization(o: Optimization) -> str:
    epochs = f"{o.epochs:,} epoch(s)" + (f" and {o.clean_epochs:,} without the policy" if o.clean_epochs else "")
    average = f", average of the weights (EMA) with decay {o.ema_decay:g}" if o.ema_decay is not None else ""
    return (
        f"{epochs} in batches of {o.global_batch:,}, {o.optimizer} with learning rate {o.learning_rate:g} "
        f"({o.schedule}), weight decay {o.weight_decay:g}{average}"
    )


def _describe_views(v: Views) -> str:
    parts = [f"policy `{v.policy}`", f"crop {v.crop}"]
    parts += ["horizontal flip"] if v.flip else []
    parts += [f"cutout of {v.cutout} pixels"] if v.cutout else []
    parts += [f"{name} with alpha {alpha:g}" for name, alpha in (("mixup", v.mixup), ("CutMix", v.cutmix)) if alpha]
    return ", ".join(parts)


def _describe_loss(s: Supervision, with_teacher: bool) -> str:
    label = "cross-entropy" + (f" with label smoothing {s.label_smoothing:g}" if s.label_smoothing else "")
    if not with_teacher:
        return label
    return (
        f"{s.label_weight:g} x {label} + {s.weight:g} x divergence from the teacher ({s.divergence}, k {s.k or 'all'}, "
        f"temperature {s.temperature:g})"
    )


def _describe_teacher(run: LoadedRun, content: str | None) -> str:
    """The teacher in a sentence. content: digest of the run's images, from which the name of a teacher's run follows.

    Names of runs, files and label stores are without their folders.
    """
    recipe = run.recipe
    if recipe.teacher.labels is not None:
        return f"Soft labels stored in `{Path(recipe.teacher.labels).name}` by `kdaug label`."
    if recipe.teacher.source == "none":
        return "Trained without a teacher."
    if recipe.teacher.source != "train":
        sources = split_source(recipe.teacher.source)
        averaged = "" if len(sources) == 1 else ", averaged"
        described = " and ".join(map(_describe_source, sources))
        described = described.replace("the ", "The ", 1) if described.startswith("the ") else described
        return f"{described}{averaged}, on the same views."
    epochs = recipe.teacher.epochs or recipe.optimization.epochs
    folder, names = run.directory.path.parent / "teachers", teacher_run_names(recipe, content)
    ends = [line for name in names for line in read_metrics(folder / name) if line["kind"] == "end"]
    errors = ", ".join(f"{end['top1_error']:.2f} %" for end in ends)
    verb = "Its error on the same validation images is" if len(names) == 1 else "The errors on the same images are"
    error = f" {verb} {errors}." if len(ends) == len(names) else ""
    folds = "" if len(names) == 1 else f" {len(names)} times, each without one part of the images,"
    return (
        f"`{teacher_network(recipe).name}`, trained first on the same images{folds} for {epochs:,} epoch(s) with "
        f"policy `{recipe.teacher.policy}`, then applied to the same views as the student.{error}"
    )


def _describe_source(source: str) -> str:
    """One of the teachers in teacher.source."""
    kind, _, location = source.partition(":")
    if kind == "bundled":
        return "the teacher of the Omniglot characters that comes with kdaug"
    return f"timm's `{location}`" if kind == "timm" else f"the network of the {kind} `{Path(location).name}`"


def _describe_data(run: LoadedRun, dataset: Dataset | None) -> dict[str, str]:
    settings, root = run.recipe.data, Path(run.recipe.data.root)
    place = f" `{root.name if root.is_absolute() else root}`" if settings.encoded else ""
    data = {"dataset": settings.name + place, "classes": f"{len(run.network_info.classes):,}"}
    if dataset is None:
        return data | {"training images": "not known: the images of the run could not be read for this card"}
    counts = np.bincount(dataset.train.labels, minlength=len(dataset.classes))
    per_class = " to ".join(f"{count:,}" for count in sorted({counts.min(), counts.max()}))
    return data | {
        "training images": f"{len(dataset.train):,}, {per_class} per class",
        "validation images": f"{len(dataset.val):,} ({dataset.val_source})",
    }


def _describe_error(source: ExportSource, run: LoadedRun, dataset: Dataset | None) -> str:
    lines = [line for line in read_metrics(run.directory.path) if line["kind"] == "eval"]
    if not lines:
        return "Not known: the metrics of the run are missing."
    scores = lines[-1] if source.weights == "last" else min(lines, key=lambda line: float(line["top1_error"]))
    images = "the validation images"
    if dataset is not None:
        images = f"{scores['images']:,} validation images ({dataset.val_source})"
    height, width = source.info.size
    selected = "These weights are the ones with the lowest error on these images, so the true error is probably higher."
    return (
        f"{describe_errors(scores['top1_error'], scores['top5_error'], len(source.info.classes))} on {images} "
        f"at {width}x{height} pixels." + (f" {selected}" if source.weights == "best" else "")
    )
