"""Training on classes of unequal size: balanced sampling and class weights, resumed and on several ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from rich.console import Console
from support.images import write_noise
from support.ranks import batches_in, start_ranks, train_rank
from support.recipes import TINY, with_settings
from support.runs import assert_same_run, read_lines
from support.steps import train_until

from kdaug import InputError
from kdaug.config import Recipe, check
from kdaug.supervision import TeacherSoftLabels
from kdaug.training import train
from kdaug.training.batches import make_views, training_batches
from kdaug.training.context import TrainContext, build_context
from kdaug.training.resolve import resolve
from kdaug.training.state import init_state
from kdaug.training.step import TrainStep

SAMPLE = {"data.balance": "sample"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Makes TINY two epochs of eight steps on photos of three classes with 20, 9 and 3 training images."""
    root = tmp_path_factory.mktemp("photos")
    write_noise(root / "train", {"large": 20, "middle": 9, "small": 3})
    write_noise(root / "val", {"large": 6, "middle": 2, "small": 1})
    return {
        "data.name": "folder", "data.root": str(root), "data.train_images": None, "data.image_size": 16,
        "data.workers": 0, "views.crop": "random-resized", "student.name": "small_convnet",
        "optimization.global_batch": 6, "run.resume": True,
    }  # fmt: skip


@pytest.fixture
def context_of(settings: dict[str, Any], tmp_path: Path) -> Callable[..., TrainContext]:
    def create(changed: dict[str, Any]) -> TrainContext:
        recipe = with_settings(TINY, {**settings, "run.dir": str(tmp_path / "run"), **changed})
        return build_context(resolve(recipe), Console(quiet=True))

    return create


def recipe_of(settings: dict[str, Any], directory: Path, changed: dict[str, Any]) -> Recipe:
    return with_settings(TINY, {**settings, "run.dir": str(directory), **changed})


def test_an_epoch_has_as_many_images_of_each_class(context_of: Callable[..., TrainContext]) -> None:
    context = context_of({**SAMPLE, "optimization.global_batch": 8})
    batches = list(training_batches(context, 0))
    assert len(batches) == 8
    for epoch in (batches[:4], batches[4:]):
        labels = torch.cat([batch.labels for batch in epoch])
        assert sorted(labels.bincount().tolist()) == [10, 11, 11]
        indices = np.concatenate([batch.key.indices for batch in epoch])
        assert labels.tolist() == context.dataset.train.labels[indices % 32].tolist()


def test_each_use_of_an_image_has_a_view_of_its_own(context_of: Callable[..., TrainContext]) -> None:
    """The three images of the smallest class are used eleven times, in eleven views. The first is that without
    sampling."""
    context = context_of({**SAMPLE, "optimization.global_batch": 8})
    epoch = list(training_batches(context, 0))[:4]
    views = {
        int(index): pixels.numpy().tobytes()
        for batch in epoch
        for index, pixels, label in zip(batch.key.indices, batch.pixels, batch.labels, strict=True)
        if label == 2
    }
    assert len(views) == len(set(views.values())) in (10, 11)
    for batch in training_batches(context_of({"optimization.global_batch": 8}), 0):
        for index, pixels, label in zip(batch.key.indices, batch.pixels, batch.labels, strict=True):
            if batch.key.epoch == 0 and label == 2 and int(index) in views:
                assert views[int(index)] == pixels.numpy().tobytes()


def test_a_stopped_run_with_sampling_resumes_bit_for_bit(settings: dict[str, Any], tmp_path: Path) -> None:
    whole = train(recipe_of(settings, tmp_path / "whole", SAMPLE)).directory
    stopped = recipe_of(settings, tmp_path / "stopped", {**SAMPLE, "data.workers": 1})
    train_until(stopped, step=2)
    train_until(stopped, step=5)
    assert_same_run(train(stopped).directory, whole)
    without = train(recipe_of(settings, tmp_path / "without", {})).directory
    assert read_lines(without, "step") != read_lines(whole, "step")


def test_ranks_share_the_sampled_images(settings: dict[str, Any], tmp_path: Path) -> None:
    changed = {**settings, **SAMPLE, "run.resume": False}
    train_rank({**changed, "run.dir": str(tmp_path / "run-1")}, tmp_path / "alone")
    ranks = start_ranks(2, train_rank, {**changed, "run.dir": str(tmp_path / "run-2")}, tmp_path / "ranks")
    assert ranks.wait() == [0, 0]
    alone, shares = batches_in(tmp_path / "alone"), [batches_in(tmp_path / "ranks", rank) for rank in range(2)]
    assert len(alone) == 10
    for step, batch in enumerate(alone):
        assert batch["indices"] == [index for share in shares for index in share[step]["indices"]]
        assert batch["views"] == [view for share in shares for view in share[step]["views"]]


def test_an_unreadable_image_is_replaced_in_a_sampled_batch(settings: dict[str, Any], tmp_path: Path) -> None:
    root = tmp_path / "photos"
    write_noise(root, {"large": 20, "small": 3})
    changed = {**SAMPLE, "data.root": str(root), "data.max_unreadable": 0.2, "data.val_fraction": 0.3}
    context = build_context(resolve(recipe_of(settings, tmp_path / "run", changed)), Console(quiet=True))
    broken = context.dataset.train.name_of(int((context.dataset.train.labels == 1).argmax()))
    Path(broken).write_bytes(b"no image")
    batches = list(training_batches(context, 0))
    assert {len(batch.labels) for batch in batches} == {6}
    assert list(context.unreadable_train.names) == [broken]


def test_the_loss_has_the_weights_of_the_classes(context_of: Callable[..., TrainContext]) -> None:
    context = context_of({"data.balance": "loss", "student.name": "wide_resnet10_1"})
    state = init_state(context)
    batch = next(training_batches(context, 0))
    assert context.class_weight is not None
    weights = 32 / 3 / np.array([20, 9, 3])
    assert_allclose(context.class_weight, weights, rtol=1e-6)
    network = state.network.train()
    with torch.no_grad():
        logits = network(context.network_info.input_format.normalize(batch.pixels)).double().numpy()
    losses = TrainStep(context, state, None)(batch)
    labels = batch.labels.numpy()
    powers = np.exp(logits - logits.max(1, keepdims=True))
    expected = -np.log(powers[np.arange(6), labels] / powers.sum(1))
    assert_allclose(losses.cross_entropy.detach(), expected, rtol=1e-4)
    assert_allclose(losses.loss.detach(), weights[labels] * expected, rtol=1e-4)


def test_label_trust_uses_the_unaugmented_image_of_each_use(context_of: Callable[..., TrainContext]) -> None:
    context = context_of({**SAMPLE, "supervision.label_trust": True})
    log_probs = torch.arange(32, dtype=torch.float32)
    logits = torch.zeros(4, 3)
    source = TeacherSoftLabels(lambda views, indices: logits, context.recipe.supervision, lambda _: log_probs)  # type: ignore[arg-type]
    source.prepare()
    soft = source.soft_labels(torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64), 0, np.array([3, 35, 31, 95]))
    assert soft.unaugmented_label_log_prob is not None
    assert soft.unaugmented_label_log_prob.tolist() == [3, 3, 31, 31]


@pytest.mark.parametrize(
    ("counts", "changed", "chosen"),
    [
        ({"a": 20, "b": 4}, {}, "none"),
        ({"a": 20, "b": 3}, {}, "sample"),
        ({"a": 20, "b": 3}, {"teacher.labels": "labels"}, "loss"),
        ({"a": 20, "b": 3}, {"views.mixup": 0.2}, "loss"),
        ({"a": 20, "b": 3}, {"data.balance": "none"}, "none"),
    ],
)
def test_auto_chooses_by_the_sizes_of_the_classes(
    settings: dict[str, Any], tmp_path: Path, counts: dict[str, int], changed: dict[str, Any], chosen: str
) -> None:
    write_noise(tmp_path / "photos" / "train", counts)
    write_noise(tmp_path / "photos" / "val", {"a": 1, "b": 1})
    data = {"data.balance": "auto", "data.root": str(tmp_path / "photos")}
    recipe = recipe_of(settings, tmp_path / "run", {**data, **changed})
    assert build_context(resolve(recipe), Console(quiet=True)).balance == chosen


def test_the_method_and_the_balanced_error_are_logged(
    settings: dict[str, Any], tmp_path: Path, console: Console
) -> None:
    """The validation images are imbalanced, too: their errors are not the same."""
    train(recipe_of(settings, tmp_path / "run", {"data.balance": "auto"}), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert (
        "data.balance sample (chosen by auto): class small has 3 training image(s), class large 20; training images "
        "are drawn with equal class probability\n"
    ) in text
    end = read_lines(tmp_path / "run", "end")[0]
    assert f"balanced error {end['balanced_error']:.2f} %" in text.splitlines()[-1]


@pytest.mark.parametrize(
    ("changed", "fragment"),
    [({"teacher.labels": "labels"}, "teacher.labels, which"), ({"views.cutmix": 1.0}, "mixup or CutMix, which")],
)
def test_sampling_is_refused_where_an_image_has_one_view(changed: dict[str, Any], fragment: str) -> None:
    with pytest.raises(InputError, match=f"data.balance sample cannot be combined with {fragment}.*to loss"):
        check(with_settings(TINY, {**SAMPLE, **changed}))
    check(with_settings(TINY, {"data.balance": "loss", **changed}))


def test_labeling_uses_every_image_once(context_of: Callable[..., TrainContext]) -> None:
    """Its views are those of the first uses, so stored labels fit a student with class weights."""
    from kdaug.data.loader import BatchKey

    key = BatchKey(0, 0, np.arange(32), 0)
    (sampled,), (plain,) = (list(make_views(context_of(each), [key], False)) for each in (SAMPLE, {}))
    assert torch.equal(sampled.pixels, plain.pixels)
