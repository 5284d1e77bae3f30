"""Evaluation: exact counts over all images, whatever the batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdaug.config import Recipe
from kdaug.data import load_dataset
from kdaug.data.loader import Batch, BatchKey
from kdaug.training import train
from kdaug.training.evaluation import Scores, evaluate

CPU = torch.device("cpu")


def numbered(first: int, count: int) -> np.ndarray:
    """Images uint8 [count,1,1,3] that carry their number in their pixels."""
    number = np.arange(first, first + count)
    return np.stack([number // 256, number % 256, 0 * number], axis=1).astype(np.uint8).reshape(-1, 1, 1, 3)


def numbers_in(images: Tensor) -> Tensor:
    pixels = images.reshape(-1, 3).long()
    return pixels[:, 0] * 256 + pixels[:, 1]


@settings(max_examples=40)
@given(st.data(), st.integers(2, 8), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_scores_are_plain_counts_over_uneven_batches(data: st.DataObject, classes: int, sizes: list[int]) -> None:
    count = sum(sizes)
    rows = st.permutations(range(classes)).map(lambda order: [0.7 * place - 1 for place in order])
    logits = data.draw(st.lists(rows, min_size=count, max_size=count))
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))

    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    batches = [
        Batch(
            numbered(start, size), np.array(labels[start : start + size], np.int64), BatchKey(0, 0, np.arange(size), 0)
        )
        for start, size in zip(starts, sizes, strict=True)
    ]
    table = torch.tensor(logits)
    scores = evaluate(lambda images: table[numbers_in(images)], batches, CPU)

    better = [sum(other > row[label] for other in row) for row, label in zip(logits, labels, strict=True)]
    losses = [math.log(sum(map(math.exp, row))) - row[label] for row, label in zip(logits, labels, strict=True)]
    assert scores.images == count
    assert scores.top1_error == 100 * sum(b >= 1 for b in better) / count
    assert scores.top5_error == 100 * sum(b >= 5 for b in better) / count
    assert scores.val_loss == pytest.approx(sum(losses) / count, rel=1e-5)


def test_low_precision_logits_are_counted_in_float32() -> None:
    logits = torch.tensor([[0.0, 8.0], [8.0, 0.0]], dtype=torch.bfloat16)
    batch = Batch(numbered(0, 2), np.array([1, 1]), BatchKey(0, 0, np.arange(2), 0))
    scores = evaluate(lambda images: logits[numbers_in(images)], [batch], CPU)
    assert scores.top1_error == 50
    assert scores.val_loss == pytest.approx(math.log(1 + math.exp(-8)) + 4, rel=1e-5)


def test_nothing_to_evaluate_is_not_a_perfect_score() -> None:
    with pytest.raises(Exception, match="nothing to evaluate"):
        evaluate(lambda images: images.float(), [], CPU)


def test_figures_carry_the_names_they_are_logged_under() -> None:
    assert Scores(images=4, top1_error=50.0, top5_error=25.0, val_loss=1.5).figures() == {
        "top1_error": 50.0,
        "top5_error": 25.0,
        "val_loss": 1.5,
        "images": 4,
    }


def test_the_errors_of_a_run_are_a_recount_from_its_weight_file(
    tiny: Callable[..., Recipe], lines_of: Callable[[Path], list[dict]]
) -> None:
    outcome = train(tiny())
    weights = safetensors.numpy.load_file(outcome.directory / "last.safetensors")
    dataset = load_dataset(tiny().data)
    x = (dataset.val.images.reshape(2000, -1) / 255 - dataset.mean[0]) / dataset.std[0]
    logits = x @ weights["fc.weight"].T.astype(float) + weights["fc.bias"]
    ranks = (logits > logits[np.arange(2000), dataset.val.labels][:, None]).sum(1)
    end = lines_of(outcome.directory)[-1]
    assert end["images"] == 2000
    assert end["top1_error"] == outcome.top1_error == 100 * (ranks >= 1).sum() / 2000
    assert end["top5_error"] == outcome.top5_error == 100 * (ranks >= 5).sum() / 2000
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(2000), dataset.val.labels]
    assert end["val_loss"] == pytest.approx(losses.mean(), rel=1e-5)
