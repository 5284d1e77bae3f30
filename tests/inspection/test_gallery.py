"""The gallery: what is shown is what the student gets and what the teacher says, and nothing is hand-picked."""

from __future__ import annotations

import io
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
from kdaug.training.context import TrainContext, build_context
from kdaug.training.resolve import resolve

CANDIDATES, SHOWN = 60, 7


@pytest.fixture(scope="module")
def context() -> TrainContext:
    """The bundled images under geometric views, keyed by another seed than the run's."""
    recipe = Recipe(
        data=Data(train_images=100),
        views=Views(policy="randaugment-n2-m6@paper-geometric", cutout=8, seed=11),
        student=Network("wide_resnet10_1"),
        optimization=Optimization(global_batch=50),
        run=Run(dir="unused", device="cpu", threads=1),
    )
    return build_context(resolve(recipe), Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def teacher(context: TrainContext) -> Teacher:
    """An untrained network whose answers differ enough from image to image to be ranked."""
    torch.manual_seed(3)
    network = create_network("wide_resnet10_1", 10, 1)
    with torch.no_grad():
        network.fc.weight *= 8
    return Teacher(network, context.card.input_format)


@pytest.fixture(scope="module")
def looks(context: TrainContext, teacher: Teacher) -> list[ViewPrediction]:
    """Seven looks with all ten classes."""
    return predict_views(context, teacher, epoch=2, candidates=CANDIDATES, shown=SHOWN, classes=10)


@pytest.fixture(scope="module")
def views(context: TrainContext) -> np.ndarray:
    """The views of the candidates in that epoch, planned and carried out anew."""
    indices = np.arange(CANDIDATES)
    return apply(context.dataset.train.images[indices], context.policy.plan(11, 2, indices, (28, 28)))


def answers(context: TrainContext, teacher: Teacher, images: np.ndarray) -> np.ndarray:
    """The teacher's probabilities in float64, from its bare network."""
    x = torch.from_numpy((images / 255 - context.dataset.mean[0]) / context.dataset.std[0]).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = teacher.network(x.float()).double().numpy()
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def rows_of(looks: list[ViewPrediction], context: TrainContext) -> list[int]:
    """Which candidate each look shows, found by its pixels."""
    images = context.dataset.train.images[:CANDIDATES]
    return [int(np.flatnonzero((images == look.image).all((1, 2, 3)))[0]) for look in looks]


def test_each_view_is_that_of_its_image_in_that_epoch(
    context: TrainContext, looks: list[ViewPrediction], views: np.ndarray
) -> None:
    for look, row in zip(looks, rows_of(looks, context), strict=True):
        np.testing.assert_array_equal(look.view, views[row])
        assert look.label == context.dataset.classes[context.dataset.train.labels[row]]


def test_the_steps_told_lead_from_the_image_to_the_view(context: TrainContext, looks: list[ViewPrediction]) -> None:
    for look in looks:
        again = apply(look.image[None], plan_of([look.steps], (28, 28), fill=context.dataset.fill))
        np.testing.assert_array_equal(again[0], look.view)


def test_the_probabilities_are_the_teachers_and_sum_to_1(
    context: TrainContext, teacher: Teacher, looks: list[ViewPrediction], views: np.ndarray
) -> None:
    on_view = answers(context, teacher, views)
    on_plain = answers(context, teacher, context.dataset.train.images[:CANDIDATES])
    for look, row in zip(looks, rows_of(looks, context), strict=True):
        label = context.dataset.train.labels[row]
        values = [probability for _, probability in look.top]
        assert sum(values) == pytest.approx(1)
        assert values == sorted(values, reverse=True)
        assert dict(look.top) == pytest.approx(dict(zip(context.dataset.classes, on_view[row], strict=True)), abs=1e-4)
        assert look.kept == pytest.approx(on_view[row, label], abs=1e-4)
        assert look.plain == pytest.approx(on_plain[row, label], abs=1e-4)


def test_those_shown_stand_at_even_ranks_from_the_most_ruined_to_the_most_recognisable(
    context: TrainContext, teacher: Teacher, looks: list[ViewPrediction], views: np.ndarray
) -> None:
    labels = context.dataset.train.labels[:CANDIDATES]
    kept = sorted(answers(context, teacher, views)[np.arange(CANDIDATES), labels])
    ranks = [round((CANDIDATES - 1) * place / (SHOWN - 1)) for place in range(SHOWN)]
    assert [look.kept for look in looks] == pytest.approx([kept[rank] for rank in ranks], abs=1e-4)


def test_only_the_top_classes_asked_for_are_told(
    context: TrainContext, teacher: Teacher, looks: list[ViewPrediction]
) -> None:
    fewer = predict_views(context, teacher, epoch=2, candidates=CANDIDATES, shown=SHOWN, classes=3)
    assert [look.top for look in fewer] == [look.top[:3] for look in looks]


def test_more_candidates_than_images_are_all_of_them(context: TrainContext, teacher: Teacher) -> None:
    few = replace(context, dataset=replace(context.dataset, train=context.dataset.train.subset(np.arange(5))))
    looks = predict_views(few, teacher, epoch=0, candidates=CANDIDATES, shown=5)
    assert sorted(rows_of(looks, few)) == [0, 1, 2, 3, 4]
