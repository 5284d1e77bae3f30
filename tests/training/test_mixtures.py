"""Training on mixtures (mixup, CutMix): independent of batches, ranks and unreadable images, also for the teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from support.images import write_noise
from support.recipes import with_settings
from support.runs import weight_bytes

from kdaug import InputError, apply
from kdaug.config import Data, Recipe, Run, Supervision, Views, check
from kdaug.data.loader import BatchKey
from kdaug.rng import permutation
from kdaug.supervision import MixedLabels, distillation_loss
from kdaug.training import batches as batches_module
from kdaug.training import train
from kdaug.training.batches import epoch_order, make_views, training_batches
from kdaug.training.context import TrainContext, build_context
from kdaug.training.distributed import DistContext
from kdaug.training.labeling import LabelRequest, label_views
from kdaug.training.resolve import resolve, teacher_run_recipes
from kdaug.views.mixing import mix, partners, plan_mixing

MIXED = {"views.mixup": 0.4, "views.cutmix": 1.0}
SEED = 3


def create_context(recipe: Recipe) -> TrainContext:
    return build_context(resolve(recipe), Console(quiet=True))


def views_by_image(
    context: TrainContext, keys: list[BatchKey], replace_unreadable: bool = False
) -> dict[int, tuple[Any, ...]]:
    """For each image: the bytes of its view, its label, its partner's label and its own share."""
    views = {}
    for batch in make_views(context, keys, replace_unreadable):
        assert batch.mixed_labels is not None
        columns = (batch.pixels.numpy(), batch.labels, batch.mixed_labels.partner_labels, batch.mixed_labels.own_weight)
        for index, pixels, *rest in zip(batch.key.indices.tolist(), *columns, strict=True):
            views[index] = (pixels.tobytes(), *(value.item() for value in rest))
    return views


@pytest.fixture
def context(tiny_recipe: Callable[..., Recipe]) -> TrainContext:
    return create_context(tiny_recipe({**MIXED, "run.seed": SEED}))


def test_each_view_is_mixed_with_that_of_the_next_image(context: TrainContext) -> None:
    """The next image in the order of the epoch."""
    train_images, size = context.dataset.train, context.dataset.size
    batch = next(training_batches(context, 5))
    indices = batch.key.indices
    order = permutation(SEED, 1, 256).tolist()
    next_indices = np.array([order[(order.index(index) + 1) % 256] for index in indices.tolist()])

    def unmixed(indices: np.ndarray) -> np.ndarray:
        return apply(train_images.images[indices], context.policy.plan(SEED, 1, indices, size))

    plan = plan_mixing(SEED, 1, indices, size, 0.4, 1.0)
    assert np.array_equal(batch.pixels, mix(unmixed(indices), unmixed(next_indices), plan))
    assert batch.labels.tolist() == train_images.labels[indices].tolist()
    assert batch.mixed_labels is not None
    assert batch.mixed_labels.partner_labels.tolist() == train_images.labels[next_indices].tolist()
    assert batch.mixed_labels.own_weight.tolist() == plan.own_weight(size).tolist()
    parts = batch.chunk(3)
    own_weight = torch.cat([part.mixed_labels.own_weight for part in parts if part.mixed_labels])
    assert torch.equal(own_weight, batch.mixed_labels.own_weight)


def test_mixtures_do_not_depend_on_batches_or_ranks(context: TrainContext) -> None:
    order = permutation(SEED, 0, 256)
    whole = views_by_image(context, [BatchKey(0, 0, order, 0)])
    assert len(whole) == 256
    small = [BatchKey(step, 0, indices, 0) for step, indices in enumerate(np.split(order, 32))]
    assert views_by_image(context, small) == whole
    assert views_by_image(context, [BatchKey(0, 0, np.arange(256)[::-1].copy(), 0)]) == whole
    shares = [DistContext(rank, 4).shard(BatchKey(0, 0, order, 0)) for rank in range(4)]
    assert {index: view for share in shares for index, view in views_by_image(context, [share]).items()} == whole


def test_a_batch_in_epoch_order_loads_one_image_more(context: TrainContext, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, load = [], batches_module.load
    monkeypatch.setattr(
        batches_module,
        "load",
        lambda images, keys, *rest: load(images, (loaded.append(key) or key for key in keys), *rest),
    )
    next(training_batches(context, 2))
    assert [len(key.indices) for key in loaded[:1]] == [context.recipe.optimization.global_batch + 1]
    assert epoch_order(context, 0, np.array([4, 9, 2])).tolist() == [
        index for index in permutation(SEED, 0, 256).tolist() if index in (4, 9, 2)
    ]


def test_unreadable_images_change_only_their_own_mixtures(tmp_path: Path) -> None:
    for split, count in (("train", 12), ("val", 1)):
        write_noise(tmp_path / "photos" / split, {"class0": count, "class1": count}, size=(24, 20))
    recipe = Recipe(
        data=Data(name="folder", root=str(tmp_path / "photos"), image_size=16, workers=0, max_unreadable=0.5),
        views=Views(crop="random-resized", mixup=0.5, cutmix=0.5),
        run=Run(dir=str(tmp_path / "run")),
    )
    context = create_context(recipe)
    order = permutation(0, 0, 24)
    keys = [BatchKey(step, 0, indices, 0) for step, indices in enumerate(np.split(order, 6))]
    before, partner = views_by_image(context, keys), partners(0, 0, 24)
    unreadable = [int(order[3]), int(order[4]), int(order[11])]
    for index in unreadable:
        path = Path(context.dataset.train.name_of(index))
        path.write_bytes(path.read_bytes()[:50])
    batches = make_views(create_context(recipe), keys, replace_unreadable=True)
    assert [len(batch.labels) for batch in batches] == [4] * 6
    training = views_by_image(create_context(recipe), keys, replace_unreadable=True)
    labeling = views_by_image(create_context(recipe), keys)
    assert labeling.keys() == before.keys() - set(unreadable)
    assert training == labeling, "the images that replace unreadable ones have the same view there"
    for index, view in labeling.items():
        if partner[index] in unreadable:
            assert view[1] == view[2], "it is not mixed"
            assert view[0] != before[index][0] or before[index][3] == 1
        else:
            assert view == before[index]


def test_cross_entropy_uses_both_labels() -> None:
    logits = torch.randn(3, 5, dtype=torch.float64)
    labels, partner_labels, share = torch.tensor([0, 1, 2]), torch.tensor([4, 1, 0]), torch.tensor([0.25, 0.5, 1.0])
    mixed = MixedLabels(partner_labels, share)
    output = distillation_loss(Supervision(label_smoothing=0.1), logits, None, labels, mixed_labels=mixed)
    target = torch.full((3, 5), 0.02, dtype=torch.float64)
    for row in range(3):
        target[row, labels[row]] += 0.9 * share[row]
        target[row, partner_labels[row]] += 0.9 * (1 - share[row])
    torch.testing.assert_close(output.loss, -(target * logits.log_softmax(1)).sum(1))


def test_stored_labels_are_of_the_mixed_views(recipe_with_teacher: Recipe, teacher_run: Path, tmp_path: Path) -> None:
    settings = {
        **MIXED, "teacher.source": f"run:{teacher_run}", "optimization.clean_epochs": 1,
        "run.dir": str(tmp_path / "online"),
    }  # fmt: skip
    recipe = with_settings(recipe_with_teacher, settings)
    label_views(recipe, tmp_path / "store", LabelRequest(precision="float32"))
    online = train(recipe).directory
    stored = with_settings(recipe, {"teacher.labels": str(tmp_path / "store"), "run.dir": str(tmp_path / "stored")})
    assert weight_bytes(online) == weight_bytes(train(stored).directory)
    with pytest.raises(InputError, match=r"views.mixup: 0.4 -> 0.2"):
        train(with_settings(stored, {"views.mixup": 0.2, "run.dir": str(tmp_path / "other")}))


def test_a_trained_teacher_gets_unmixed_views(recipe_with_teacher: Recipe) -> None:
    views = teacher_run_recipes(resolve(with_settings(recipe_with_teacher, MIXED)))[0].views
    assert (views.mixup, views.cutmix) == (0, 0)


@pytest.mark.parametrize(
    ("views", "supervision", "message"),
    [
        (Views(mixup=-0.1), Supervision(), r"views\.mixup is -0.1, but must be "),
        (Views(cutmix=1000), Supervision(), r"views\.cutmix is 1000"),
        (Views(mixup=0.2), Supervision(label_trust=True), "label_trust cannot be combined with mixup or CutMix"),
        (Views(cutmix=0.2), Supervision(drop_worst=0.2), "drop_worst cannot be combined with mixup or CutMix"),
        (Views(cutmix=1.0), Supervision(divergence="decoupled"), "decoupled cannot be combined with mixup or CutMix"),
    ],
)
def test_settings_that_exclude_mixing_are_refused(views: Views, supervision: Supervision, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(replace(Recipe(), views=views, supervision=supervision))
