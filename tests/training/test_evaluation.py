"""Evaluation: exact counts over all images for any batches, on the right weights, size and epochs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.networks import SmallConvNet
from support.runs import read_lines
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from kdaug import InputError
from kdaug.config import Recipe
from kdaug.data import load_dataset
from kdaug.data.loader import Batch, BatchKey
from kdaug.training import train
from kdaug.training.evaluation import Scores, evaluate, top_classes

TinyRecipe = Callable[..., Recipe]
CPU = torch.device("cpu")


def numbered_images(first: int, count: int) -> np.ndarray:
    """Images uint8 [count,1,1,3] with their number in their pixels."""
    number = np.arange(first, first + count)
    return np.stack([number // 256, number % 256, 0 * number], axis=1).astype(np.uint8).reshape(-1, 1, 1, 3)


def numbers_of(images: Tensor) -> Tensor:
    pixels = images.reshape(-1, 3).long()
    return pixels[:, 0] * 256 + pixels[:, 1]


@settings(max_examples=40)
@given(st.data(), st.integers(2, 8), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_scores_are_counts_over_batches_of_any_size(data: st.DataObject, classes: int, sizes: list[int]) -> None:
    count = sum(sizes)
    rows = st.permutations(range(classes)).map(lambda order: [0.7 * rank - 1 for rank in order])
    logits = data.draw(st.lists(rows, min_size=count, max_size=count))
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))

    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    batches = [
        Batch(
            numbered_images(start, size),
            np.array(labels[start : start + size], np.int64),
            BatchKey(0, 0, np.arange(size), 0),
        )
        for start, size in zip(starts, sizes, strict=True)
    ]
    table = torch.tensor(logits)
    scores = evaluate(lambda images: table[numbers_of(images)], batches, CPU)

    better = [sum(other > row[label] for other in row) for row, label in zip(logits, labels, strict=True)]
    losses = [math.log(sum(map(math.exp, row))) - row[label] for row, label in zip(logits, labels, strict=True)]
    assert scores.images == count
    assert scores.top1_error == 100 * sum(b >= 1 for b in better) / count
    assert scores.top5_error == 100 * sum(b >= 5 for b in better) / count
    assert scores.val_loss == pytest.approx(sum(losses) / count, rel=1e-5)
    wrong = {label: [b >= 1 for b, own in zip(better, labels, strict=True) if own == label] for label in labels}
    of_class = [100 * sum(each) / len(each) for each in wrong.values()]
    assert scores.balanced_error == pytest.approx(sum(of_class) / len(of_class))


def test_an_observer_gets_each_batch_with_logits_and_ranked_classes() -> None:
    table, seen = torch.tensor([[0.0, 3.0, 1.0], [5.0, 4.0, 6.0], [1.0, 0.0, 2.0]]), []
    keys = [BatchKey(0, 0, np.array(rows, np.int64), 0) for rows in ([0, 1], [2], [])]
    batches = [
        Batch(numbered_images(k.indices[0] if len(k.indices) else 0, len(k.indices)), k.indices, k) for k in keys
    ]
    scores = evaluate(
        lambda images: table[numbers_of(images)], batches, CPU, observe=lambda *values: seen.append(values)
    )
    assert [batch for batch, _, _ in seen] == batches[:2]
    assert torch.equal(torch.cat([logits for _, logits, _ in seen]), table)
    assert torch.cat([ranked for _, _, ranked in seen]).tolist() == [[1, 2, 0], [2, 0, 1], [2, 0, 1]]
    assert scores == evaluate(lambda images: table[numbers_of(images)], batches, CPU)


@pytest.mark.parametrize("classes", [3, 5, 8, 700])
def test_equal_logits_are_ranked_in_the_same_way_for_any_count_up_to_five(classes: int) -> None:
    logits = torch.zeros(4, classes)
    logits[:, : classes // 2] = 1.0
    ranked = top_classes(logits)
    for count in range(1, 6):
        assert torch.equal(top_classes(logits, count), ranked[:, :count])
    assert top_classes(logits, 999).shape == (4, classes)


def test_low_precision_logits_are_scored_in_float32() -> None:
    logits = torch.tensor([[0.0, 8.0], [8.0, 0.0]], dtype=torch.bfloat16)
    batch = Batch(numbered_images(0, 2), np.array([1, 1]), BatchKey(0, 0, np.arange(2), 0))
    scores = evaluate(lambda images: logits[numbers_of(images)], [batch], CPU)
    assert scores.top1_error == 50
    assert scores.val_loss == pytest.approx(math.log(1 + math.exp(-8)) + 4, rel=1e-5)


def test_an_evaluation_without_images_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to evaluate"):
        evaluate(lambda images: images.float(), [], CPU)


def test_figures_have_the_names_in_the_log() -> None:
    assert vars(Scores(images=4, top1_error=50.0, top5_error=25.0, val_loss=1.5, balanced_error=40.0)) == {
        "top1_error": 50.0,
        "top5_error": 25.0,
        "val_loss": 1.5,
        "images": 4,
        "balanced_error": 40.0,
    }


def test_the_final_scores_can_be_recomputed_from_the_weights(tiny_recipe: TinyRecipe) -> None:
    result = train(tiny_recipe())
    weights = safetensors.numpy.load_file(result.directory / "last.safetensors")
    dataset = load_dataset(tiny_recipe().data)
    x = (dataset.val.images.reshape(2000, -1) / 255 - dataset.mean[0]) / dataset.std[0]
    logits = x @ weights["fc.weight"].T.astype(float) + weights["fc.bias"]
    ranks = (logits > logits[np.arange(2000), dataset.val.labels][:, None]).sum(1)
    end = read_lines(result.directory)[-1]
    assert end["images"] == 2000
    assert end["top1_error"] == result.top1_error == 100 * (ranks >= 1).sum() / 2000
    assert end["top5_error"] == result.top5_error == 100 * (ranks >= 5).sum() / 2000
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(2000), dataset.val.labels]
    assert end["val_loss"] == pytest.approx(losses.mean(), rel=1e-5)


@pytest.mark.parametrize(("every", "steps"), [(2, [8, 12]), (3, [12]), (9, [12])])
def test_runs_are_evaluated_every_n_epochs_and_at_the_end(
    tiny_recipe: TinyRecipe, every: int, steps: list[int]
) -> None:
    run = train(tiny_recipe({"optimization.epochs": 3, "run.evaluate_every": every})).directory
    assert [line["step"] for line in read_lines(run, "eval")] == steps


def test_the_error_on_unaugmented_training_images_is_measured(tiny_recipe: TinyRecipe) -> None:
    run = train(tiny_recipe({"run.evaluate_train": True})).directory
    weights = safetensors.numpy.load_file(run / "last.safetensors")
    dataset = load_dataset(tiny_recipe().data)
    x = (dataset.train.images.reshape(256, -1) / 255 - dataset.mean[0]) / dataset.std[0]
    predicted = (x @ weights["fc.weight"].T.astype(float) + weights["fc.bias"]).argmax(1)
    errors = [line["train_error"] for line in read_lines(run, "eval")]
    assert len(errors) == 2
    assert errors[-1] == 100 * (predicted != dataset.train.labels).mean()


def test_training_images_are_not_evaluated_unless_asked_for(tiny_run: Path) -> None:
    assert all("train_error" not in line for line in read_lines(tiny_run, "eval"))


def test_averaged_weights_are_evaluated_and_saved(tiny_recipe: TinyRecipe, tiny_run: Path) -> None:
    """The decay is so long that the average of eight steps still differs, with decay (1 + n) / (10 + n) at step n."""
    run = train(tiny_recipe({"optimization.ema_decay": 0.9999, "run.checkpoint_steps": 1})).directory
    newest = run / "checkpoints" / "step-00000008"
    last, average, raw, without_ema = (
        safetensors.torch.load_file(path)
        for path in (
            run / "last.safetensors",
            newest / "average.safetensors",
            newest / "weights.safetensors",
            tiny_run / "last.safetensors",
        )
    )
    assert all(torch.equal(last[name], average[name]) for name in last)
    assert not torch.equal(last["fc.weight"], raw["fc.weight"])
    assert torch.equal(raw["fc.weight"], without_ema["fc.weight"])
    assert read_lines(run)[-1]["val_loss"] != read_lines(tiny_run)[-1]["val_loss"]


def test_evaluate_size_sets_the_size_of_evaluated_images(tiny_recipe: TinyRecipe) -> None:
    sizes: set[tuple[bool, int, int]] = set()

    def note(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if isinstance(module, SmallConvNet):
            sizes.add((module.training, *inputs[0].shape[2:]))

    handle = register_module_forward_pre_hook(note)
    train(tiny_recipe({"student.name": "small_convnet", "run.evaluate_size": 36, "optimization.epochs": 1}))
    handle.remove()
    assert sizes == {(True, 28, 28), (False, 36, 36), (False, 28, 28)}  # the last: the fixed views, as in training


def test_an_impossible_evaluate_size_is_refused(tiny_recipe: TinyRecipe) -> None:
    recipe = tiny_recipe({"student.name": "softmax_regression", "run.evaluate_size": 40})
    with pytest.raises(InputError, match="network softmax_regression cannot take 1 image"):
        train(recipe)
    assert not Path(recipe.run.dir).exists()
