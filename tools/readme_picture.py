"""Draws docs/images/view-and-teacher.png: training images, their views, a teacher's probabilities, the soft labels.

usage: python tools/readme_picture.py [RUN_DIR]

RUN_DIR is a finished run on the bundled Fashion-MNIST images. Without it the script trains RECIPE with crop and flip
only, on one thread in a temporary folder, which takes a few minutes.

The views are those of RECIPE in epoch 0. The rows are not cherry-picked: the first 240 training images
are ranked by the teacher's probability of the true class on the view, and the rows are evenly spaced in this ranking.
"""

import sys
import tempfile
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray

import kdaug
from kdaug import config
from kdaug.data import load_dataset
from kdaug.supervision import load_teacher
from kdaug.views.description import format_op

OUT = Path(__file__).parents[1] / "docs" / "images" / "view-and-teacher.png"
CANDIDATES, ROWS = 240, 4
COLUMNS = ((0.02, 0.13), (0.24, 0.13), (0.54, 0.19), (0.78, 0.19))
"""Left edge and width of each column, as a share of the width of the figure."""
LABEL_COLOR, OTHER_COLOR = "#1f5fa8", "#b8bfc8"


RECIPE = kdaug.Recipe(
    data=config.Data("bundled"),
    views=config.Views("randaugment-n2-m5@paper-geometric", pad=2),
    student=config.Network("wide_resnet10_1"),
    supervision=config.Supervision(weight=1.0, k=5, temperature=2.0),
    optimization=config.Optimization(epochs=8, global_batch=128, learning_rate=0.1, weight_decay=5e-4),
)


def train_teacher(recipe: kdaug.Recipe, folder: str) -> Path:
    """Trains the network of `recipe` with crop and flip only in `folder` and returns its run directory."""
    views = config.Views(crop=recipe.views.crop, pad=recipe.views.pad)
    run = replace(recipe.run, dir=f"{folder}/teacher", threads=1)
    return kdaug.train(replace(recipe, views=views, teacher=config.Teacher(), run=run)).directory


def draw(recipe: kdaug.Recipe, run: Path) -> None:
    """Writes the picture to OUT, with the finished `run` as the teacher of `recipe`."""
    dataset = load_dataset(recipe.data)
    indices = np.arange(CANDIDATES)
    images, labels = dataset.train.images[indices], dataset.train.labels[indices]
    policy = kdaug.create_policy(f"{recipe.views.policy},pad-crop-{recipe.views.pad},flip", mean=dataset.fill)
    plan = policy.plan(seed=0, epoch=0, indices=indices, size=dataset.size)
    views = kdaug.apply(images, plan)
    teacher = load_teacher(recipe.teacher, f"run:{run}", dataset)
    logits = teacher(torch.from_numpy(views)).double()
    probabilities = logits.softmax(1).numpy()
    soft_labels = (logits / recipe.supervision.temperature).softmax(1).numpy()

    ranking = np.argsort(probabilities[indices, labels], kind="stable")
    ranks = np.linspace(CANDIDATES - 1, 0, ROWS).round().astype(int)
    figure = plt.figure(figsize=(9, 6.8), dpi=120)
    rows = [[figure.add_axes((x, 0.735 - 0.225 * r, width, 0.165)) for x, width in COLUMNS] for r in range(ROWS)]
    for row, rank in zip(rows, ranks, strict=True):
        i = ranking[rank]
        top = np.argsort(-probabilities[i])[: recipe.supervision.k]
        colors = [LABEL_COLOR if c == labels[i] else OTHER_COLOR for c in top]
        draw_image(row[0], images[i], f"label: {dataset.classes[labels[i]]}")
        draw_image(row[1], views[i], format_steps(plan.steps(i)))
        draw_bars(row[2], probabilities[i, top], colors, [dataset.classes[c] for c in top])
        draw_bars(row[3], soft_labels[i, top], colors, [""] * len(top))
        draw_arrow(row[0], 1.1, 1.5)
        draw_arrow(row[1], 1.1, 1.5)
    titles = (
        "training image",
        "view",
        "teacher's probabilities\nfor the view",
        f"soft label:\ntop {recipe.supervision.k} at temperature {recipe.supervision.temperature:g}",
    )
    for axis, title in zip(rows[0], titles, strict=True):
        axis.set_title(title, fontsize=10, fontweight="bold", pad=10)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT, metadata={"Software": None})


def format_steps(steps: list[tuple[Any, ...]]) -> str:
    """The steps of a plan as a caption of short lines."""
    return textwrap.fill(", ".join(format_op(step).replace(" ", "\N{NO-BREAK SPACE}") for step in steps), 34)


def draw_image(axis: Axes, image: NDArray[np.uint8], caption: str) -> None:
    """A gray image uint8 [H,W,1] with a caption below it."""
    axis.imshow(image[..., 0], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.set_xlabel(caption, fontsize=8)


def draw_bars(axis: Axes, values: NDArray[np.float64], colors: list[str], names: list[str]) -> None:
    """Horizontal bars for probabilities, the first on top, with the percentage at the end of each."""
    bars = axis.barh(range(len(values)), values, color=colors, height=0.7)
    axis.bar_label(bars, [f"{100 * value:.1f} %" for value in values], padding=3, fontsize=8)
    axis.set(xlim=(0, 1.3), xticks=[], yticks=range(len(values)))
    axis.set_yticklabels(names, fontsize=8)
    axis.tick_params(length=0)
    axis.invert_yaxis()
    axis.spines[["top", "right", "bottom"]].set_visible(False)


def draw_arrow(axis: Axes, start: float, end: float) -> None:
    """A horizontal arrow right of `axis`; `start` and `end` in widths of the axis from its left edge."""
    axis.annotate("", (end, 0.5), (start, 0.5), "axes fraction", arrowprops={"arrowstyle": "->", "lw": 1.5})


def main() -> None:
    if len(sys.argv) > 2 or sys.argv[1:] in (["-h"], ["--help"]):
        sys.exit(__doc__)
    if len(sys.argv) == 2:
        draw(RECIPE, Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            draw(RECIPE, train_teacher(RECIPE, folder))
    print(f"{OUT}: {OUT.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
