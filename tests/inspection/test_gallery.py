"""Predictions on views: the views are those of training, the probabilities the teacher's, nothing is hand-picked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from kdaug import apply, plan_of
from kdaug.config import Data, Network, Optimization, Recipe, Run, Views
from kdaug.inspection import ViewPrediction, predict_views
from kdaug.networks import create_network
from kdaug.supervision import Teacher
from kdaug.training.batches import training_batches
from kdaug.training.context import TrainContext, build_context
from kdaug.training.resolve import resolve

CANDIDATES, SHOWN, EPOCH = 60, 7, 2
RECIPE = Recipe(
    data=Data(train_images=100),
    views=Views(policy="randaugment-n2-m6@paper-geometric", cutout=8, seed=11),
    student=Network("wide_resnet10_1"),
    optimization=Optimization(epochs=EPOCH + 1, global_batch=50),
    run=Run(dir="unused", device="cpu", threads=1),
)
"""Bundled images under geometric views, with another seed than the run's."""


@pytest.fixture(scope="module")
def context() -> TrainContext:
    return build_context(resolve(RECIPE), Console(quiet=True))


@pytest.fixture(scope="module")
def teacher(context: TrainContext) -> Teacher:
    """An untrained network whose predictions differ enough from image to image to be ranked."""
    torch.manual_seed(3)
    network = create_network("wide_resnet10_1", 10, 1)
    with torch.no_grad():
        network.fc.weight *= 8
    return Teacher(network, context.network_info.input_format)


@pytest.fixture(scope="module")
def predictions(context: TrainContext, teacher: Teacher) -> list[ViewPrediction]:
    """Seven predictions with all ten classes."""
    return predict_views(context, teacher, EPOCH, CANDIDATES, SHOWN, classes=10)


def candidates_of(context: TrainContext) -> list[int]:
    """CANDIDATES of the training images, evenly spaced."""
    last = len(context.dataset.train) - 1
    return [round(number * last / (CANDIDATES - 1)) for number in range(CANDIDATES)]


@pytest.fixture(scope="module")
def views(context: TrainContext) -> dict[int, np.ndarray]:
    """The views of all candidates by training image, planned and applied by the test."""
    indices = np.array(candidates_of(context))
    made = apply(context.dataset.train.images[indices], context.policy.plan(11, EPOCH, indices, (28, 28)))
    return dict(zip(indices.tolist(), made, strict=True))


def probabilities(context: TrainContext, teacher: Teacher, images: np.ndarray) -> np.ndarray:
    """The teacher's probabilities in float64, from its network."""
    x = torch.from_numpy((images / 255 - context.dataset.mean[0]) / context.dataset.std[0]).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = teacher.network(x.float()).double().numpy()
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def indices_of(predictions: list[ViewPrediction], context: TrainContext) -> list[int]:
    """The training image that each prediction shows, by its pixels."""
    images = context.dataset.train.images
    return [int(np.flatnonzero((images == p.image).all((1, 2, 3)))[0]) for p in predictions]


def test_each_view_is_that_of_its_image(
    context: TrainContext, predictions: list[ViewPrediction], views: dict[int, np.ndarray]
) -> None:
    for prediction, index in zip(predictions, indices_of(predictions, context), strict=True):
        np.testing.assert_array_equal(prediction.view, views[index])
        assert prediction.label == context.dataset.classes[context.dataset.train.labels[index]]
        assert prediction.mixed_with is None


def test_the_listed_ops_turn_the_image_into_the_view(context: TrainContext, predictions: list[ViewPrediction]) -> None:
    for prediction in predictions:
        again = apply(prediction.image[None], plan_of([prediction.ops], (28, 28), fill=context.dataset.fill))
        np.testing.assert_array_equal(again[0], prediction.view)


def test_the_listed_ops_of_a_clean_epoch_have_no_cutout(teacher: Teacher) -> None:
    recipe = replace(RECIPE, optimization=replace(RECIPE.optimization, clean_epochs=1))
    context = build_context(resolve(recipe), Console(quiet=True))
    for prediction in predict_views(context, teacher, EPOCH + 1, CANDIDATES, SHOWN):
        again = apply(prediction.image[None], plan_of([prediction.ops], (28, 28), fill=context.dataset.fill))
        np.testing.assert_array_equal(again[0], prediction.view)
        assert "cutout" not in [name for name, *_ in prediction.ops]


def test_the_probabilities_are_the_teachers(
    context: TrainContext, teacher: Teacher, predictions: list[ViewPrediction], views: dict[int, np.ndarray]
) -> None:
    rows = candidates_of(context)
    of_views = dict(zip(rows, probabilities(context, teacher, np.stack(list(views.values()))), strict=True))
    of_images = dict(zip(rows, probabilities(context, teacher, context.dataset.train.images[rows]), strict=True))
    for prediction, index in zip(predictions, indices_of(predictions, context), strict=True):
        label = context.dataset.train.labels[index]
        values = [probability for _, probability in prediction.top]
        assert sum(values) == pytest.approx(1)
        assert values == sorted(values, reverse=True)
        expected = dict(zip(context.dataset.classes, of_views[index], strict=True))
        assert dict(prediction.top) == pytest.approx(expected, abs=1e-4)
        assert prediction.label_prob == pytest.approx(of_views[index][label], abs=1e-4)
        assert prediction.unaugmented_label_prob == pytest.approx(of_images[index][label], abs=1e-4)


def test_shown_views_are_at_evenly_spaced_ranks(
    context: TrainContext, teacher: Teacher, predictions: list[ViewPrediction], views: dict[int, np.ndarray]
) -> None:
    """Ranks of the label's probability, in ascending order."""
    labels = context.dataset.train.labels[candidates_of(context)]
    of_views = probabilities(context, teacher, np.stack(list(views.values())))
    ordered = sorted(of_views[np.arange(CANDIDATES), labels])
    ranks = [round((CANDIDATES - 1) * number / (SHOWN - 1)) for number in range(SHOWN)]
    assert [p.label_prob for p in predictions] == pytest.approx([ordered[rank] for rank in ranks], abs=1e-4)


def test_classes_limits_the_top_classes(
    context: TrainContext, teacher: Teacher, predictions: list[ViewPrediction]
) -> None:
    fewer = predict_views(context, teacher, EPOCH, CANDIDATES, SHOWN, classes=3)
    assert [p.top for p in fewer] == [p.top[:3] for p in predictions]


def test_more_candidates_than_images_are_all_images(context: TrainContext, teacher: Teacher) -> None:
    few = replace(context, dataset=replace(context.dataset, train=context.dataset.train.subset(np.arange(5))))
    predictions = predict_views(few, teacher, epoch=0, candidates=CANDIDATES, shown=5)
    assert sorted(indices_of(predictions, few)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("mixing", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixed_views_are_those_of_the_training_batches(mixing: dict[str, float], teacher: Teacher) -> None:
    """Views, labels, partners and shares, for the same epoch and images."""
    recipe = replace(RECIPE, views=replace(RECIPE.views, **mixing))
    context = build_context(resolve(recipe), Console(quiet=True))
    classes, in_training = context.dataset.classes, {}
    for batch in training_batches(context, EPOCH * context.steps_per_epoch):
        assert batch.mixed_labels is not None
        columns = (batch.pixels.numpy(), batch.labels, batch.mixed_labels.partner_labels, batch.mixed_labels.own_weight)
        for index, view, label, partner_label, own in zip(batch.key.indices.tolist(), *columns, strict=True):
            in_training[index] = view, classes[label], classes[partner_label], 1 - float(own)
    predictions = predict_views(context, teacher, EPOCH, CANDIDATES, CANDIDATES)
    indices = indices_of(predictions, context)
    assert sorted(indices) == candidates_of(context)
    for prediction, index in zip(predictions, indices, strict=True):
        view, label, *mixed_with = in_training[index]
        np.testing.assert_array_equal(prediction.view, view)
        assert (prediction.label, *prediction.mixed_with) == (label, *mixed_with)
    assert len({p.mixed_with for p in predictions}) > 10
