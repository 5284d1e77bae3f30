"""Compares `kdaug inspect`'s rule for likely label errors with the published list for CIFAR-10, CIFAR-100 and MNIST.

  git clone https://github.com/cleanlab/label-errors
  python tools/judge_label_errors.py label-errors cifar10 --json results/label-errors/cifar10.json
  python tools/judge_label_errors.py label-errors cifar100 --teacher run:runs/teacher --root data

The list is that of Northcutt, Athalye and Mueller (NeurIPS Datasets and Benchmarks 2021, arXiv 2103.14749): candidates
among the test images, each shown to five people. An error is confirmed if fewer than three of them chose the given
label. Probabilities come from the list's own cross-validated network, or from a teacher that was not trained on the
test images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from kdaug.config import Data, Recipe, Run, Teacher
from kdaug.inspection.label_errors import find_label_errors
from kdaug.training.context import TrainContext, build_context
from kdaug.training.evaluation import evaluate_split
from kdaug.training.progress import progress_bar
from kdaug.training.resolve import resolve
from kdaug.training.teacher import load_checked_teacher

RANKS = 20, 50, 100
MAJORITY = 3
"""Of five people."""


@dataclass(frozen=True)
class Judgement:
    """How the list of `found` images agrees with the published one.

    error: of the network on all test images, %. candidates, confirmed: images on the published list, and those of them
    that people confirmed. precision: for each rank, how many of the first images are candidates and confirmed. recall:
    how many of the candidates and confirmed errors are found at all.
    """

    dataset: str
    probabilities: str
    error: float
    found: int
    candidates: int
    confirmed: int
    precision: dict[str, dict[str, int]]
    recall: dict[str, int]


def published_errors(folder: Path, dataset: str) -> tuple[set[int], set[int]]:
    """The test images that are candidates, and those confirmed."""
    entries = json.loads((folder / "mturk" / f"{dataset}_mturk.json").read_text())
    confirmed = {entry["id"] for entry in entries if entry["mturk"]["given"] < MAJORITY}
    return {entry["id"] for entry in entries}, confirmed


def judge(
    dataset: str,
    source: str,
    probs: NDArray[np.floating],
    labels: NDArray[np.int64],
    published: tuple[set[int], set[int]],
) -> Judgement:
    """Compares the likely errors according to `probs` [N,C] and `labels` [N] with the `published` ones."""
    candidates, confirmed = published
    found = [error.position for error in find_label_errors(probs, labels)]
    precision = {
        str(rank): {
            "images": len(found[:rank]),
            "candidates": len(candidates.intersection(found[:rank])),
            "confirmed": len(confirmed.intersection(found[:rank])),
        }
        for rank in RANKS
    }
    recall = {"candidates": len(candidates.intersection(found)), "confirmed": len(confirmed.intersection(found))}
    error = 100 * float(np.mean(probs.argmax(1) != labels))
    return Judgement(dataset, source, error, len(found), len(candidates), len(confirmed), precision, recall)


def teacher_probabilities(dataset: str, source: str, root: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The teacher's probabilities [N,C] for the unaugmented test images, and their labels [N]."""
    names = {"cifar10": "cifar-10", "cifar100": "cifar-100"}
    if dataset not in names:
        raise SystemExit(f"a teacher is for {' or '.join(names)}")
    recipe = Recipe(data=Data(names[dataset], root), teacher=Teacher(source), run=Run(dir="unused", threads=1))
    context = build_context(resolve(recipe), Console())
    teacher = load_checked_teacher(context, source)
    collected = list[torch.Tensor]()
    with progress_bar(context.console) as bar:
        evaluate_split(context, teacher, bar, observe=lambda batch, logits, ranked: collected.append(logits.cpu()))
    return torch.cat(collected).double().softmax(1).numpy(), _labels(context)


def _labels(context: TrainContext) -> NDArray[np.int64]:
    return context.dataset.val.labels


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a clone of cleanlab/label-errors")
    parser.add_argument("dataset", choices=("cifar10", "cifar100", "mnist"))
    parser.add_argument("--teacher", help="run:DIR or another source; default: the list's own probabilities")
    parser.add_argument("--root", default="data", help="directory of CIFAR")
    parser.add_argument("--json", type=Path, help="file to write")
    args = parser.parse_args(arguments)
    published_labels = np.load(args.folder / "original_test_labels" / f"{args.dataset}_test_set_original_labels.npy")
    labels = published_labels.astype(np.int64)
    if args.teacher is None:
        file = args.folder / "cross_validated_predicted_probabilities" / f"{args.dataset}_test_set_pyx.npy"
        probs, source = np.load(file), "cross-validated, of the list"
    else:
        probs, own_labels = teacher_probabilities(args.dataset, args.teacher, args.root)
        source = f"teacher {Path(args.teacher.partition(':')[2]).name}"
        if not np.array_equal(labels, own_labels):
            raise SystemExit("the test images are not in the order of the list")
    result = asdict(judge(args.dataset, source, probs, labels, published_errors(args.folder, args.dataset)))
    text = json.dumps(result, indent=1)
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
