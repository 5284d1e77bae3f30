"""Training on mixtures: the same whatever the batches, ranks and unreadable images; the teacher sees them too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from kdaug.config import Data, Recipe, Run, Supervision, Views, check
from kdaug.data.loader import BatchKey
from kdaug.errors import InputError
from kdaug.rng import permutation
from kdaug.supervision import MixedLabels, distillation_loss
from kdaug.training import batches as batches_module
from kdaug.training import train
from kdaug.training.batches import epoch_order, training_batches
from kdaug.views.kernels.engine import views_of
from kdaug.training.context import TrainContext, build_context
from kdaug.training.distributed import DistContext
from kdaug.training.labelling import LabelRequest, label_views
from kdaug.training.resolve import resolve, teacher_run_recipe
from kdaug.views import apply
from kdaug.views.mixing import mix, partners, plan_mixing

Changed = Callable[[Recipe, dict[str, Any]], Recipe]
Lines = Callable[[Path], list[dict[str, Any]]]
MIXED = {"views.mixup": 0.4, "views.cutmix": 1.0}


def setup_of(recipe: Recipe) -> TrainContext:
    return build_context(resolve(recipe), Console(quiet=True))


def by_image(context: TrainContext, keys: list[BatchKey], replaced: bool = False) -> dict[int, tuple[Any, ...]]:
    """What is seen of every image: its view, its label, its partner's, its share."""
    found = {}
    for view_batch in views_of(context, keys, replaced):
        assert view_batch.mixture is not None
        columns = (
            view_batch.pixels.numpy(),
            view_batch.labels,
            view_batch.mixture.partner_labels,
            view_batch.mixture.own_weight,
        )
        for row, pixels, *rest in zip(view_batch.key.indices.tolist(), *columns, strict=True):
            found[row] = (pixels.tobytes(), *(value.item() for value in rest))
    return found


@pytest.fixture
def mixed_setup(tiny: Callable[..., Recipe]) -> TrainContext:
    return setup_of(tiny({**MIXED, "views.policy": "randaugment-n2-m5@paper-geometric", "run.seed": 3}))


def test_each_view_is_mixed_with_the_view_of_the_next_image_of_the_epoch(mixed_setup: TrainContext) -> None:
    context, train_images = mixed_setup, mixed_setup.dataset.train
    view_batch = next(training_batches(context, 5))
    rows = view_batch.key.indices
    order = permutation(3, 1, 256).tolist()
    others = np.array([order[(order.index(row) + 1) % 256] for row in rows.tolist()])

    def own_view(of: np.ndarray) -> np.ndarray:
        return apply(train_images.images[of], context.policy.plan(3, 1, of, context.dataset.size))

    plan = plan_mixing(3, 1, rows, context.dataset.size, 0.4, 1.0)
    assert np.array_equal(view_batch.pixels, mix(own_view(rows), own_view(others), plan))
    assert view_batch.labels.tolist() == train_images.labels[rows].tolist()
    assert view_batch.mixture is not None
    assert view_batch.mixture.partner_labels.tolist() == train_images.labels[others].tolist()
    assert view_batch.mixture.own_weight.tolist() == plan.own_weight(context.dataset.size).tolist()
    parts = view_batch.chunk(3)
    assert torch.equal(
        torch.cat([part.mixture.own_weight for part in parts if part.mixture]), view_batch.mixture.own_weight
    )


def test_what_is_seen_does_not_depend_on_batches_or_ranks(mixed_setup: TrainContext) -> None:
    order = permutation(3, 0, 256)
    whole = by_image(mixed_setup, [BatchKey(0, 0, order, 0)])
    assert len(whole) == 256
    small = by_image(mixed_setup, [BatchKey(step, 0, rows, 0) for step, rows in enumerate(np.split(order, 32))])
    anyhow = by_image(mixed_setup, [BatchKey(0, 0, np.arange(256)[::-1].copy(), 0)])
    assert whole == small == anyhow
    shares = [DistContext(rank, 4).shard(BatchKey(0, 0, order, 0)) for rank in range(4)]
    assert {row: seen for share in shares for row, seen in by_image(mixed_setup, [share]).items()} == whole


def test_a_batch_of_the_epoch_loads_one_image_more_than_it_shows(
    mixed_setup: TrainContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, real = [], batches_module.load
    monkeypatch.setattr(
        batches_module,
        "load",
        lambda images, keys, *rest: real(images, (loaded.append(key) or key for key in keys), *rest),
    )
    next(training_batches(mixed_setup, 2))
    assert [len(key.indices) for key in loaded[:1]] == [mixed_setup.recipe.optimization.global_batch + 1]
    assert epoch_order(mixed_setup, 0, np.array([4, 9, 2])).tolist() == [
        row for row in permutation(3, 0, 256).tolist() if row in (4, 9, 2)
    ]


def test_unreadable_images_change_only_the_views_they_have_part_in(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for kind, count in (("train", 24), ("val", 2)):
        for number in range(count):
            folder = tmp_path / "photos" / kind / f"class{number % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / f"{number:02}.png")
    recipe = Recipe(
        data=Data(name="folder", root=str(tmp_path / "photos"), image_size=16, workers=0, max_unreadable=0.5),
        views=Views(crop="random-resized", mixup=0.5, cutmix=0.5),
        run=Run(dir=str(tmp_path / "run")),
    )
    context = setup_of(recipe)
    order = permutation(0, 0, 24)
    keys = [BatchKey(step, 0, rows, 0) for step, rows in enumerate(np.split(order, 6))]
    sound, partner = by_image(context, keys), partners(0, 0, 24)
    broken = [int(order[3]), int(order[4]), int(order[11])]
    for row in broken:
        path = Path(context.dataset.train.name_of(row))
        path.write_bytes(path.read_bytes()[:50])
    training, labelling = by_image(setup_of(recipe), keys, replaced=True), by_image(setup_of(recipe), keys)
    assert labelling.keys() == sound.keys() - set(broken)
    assert training == labelling, "replaced by images of the set, each of which has one view in an epoch"
    for row, seen in labelling.items():
        if partner[row] in broken:
            assert seen[1] == seen[2], "nothing else is in it"
            assert seen[0] != sound[row][0] or sound[row][3] == 1
        else:
            assert seen == sound[row]


def test_the_cross_entropy_is_with_both_labels(
    taught_recipe: Recipe, changed: Changed, mixed_setup: TrainContext
) -> None:
    logits = torch.randn(3, 5, dtype=torch.float64)
    labels, others, share = torch.tensor([0, 1, 2]), torch.tensor([4, 1, 0]), torch.tensor([0.25, 0.5, 1.0])
    told = distillation_loss(
        Supervision(label_smoothing=0.1), logits, None, labels, mixed_labels=MixedLabels(others, share)
    )
    target = torch.full((3, 5), 0.02, dtype=torch.float64)
    for row in range(3):
        target[row, labels[row]] += 0.9 * share[row]
        target[row, others[row]] += 0.9 * (1 - share[row])
    torch.testing.assert_close(told.loss, -(target * logits.log_softmax(1)).sum(1))


def test_stored_labels_are_of_the_mixed_views(
    taught: Path, taught_recipe: Recipe, changed: Changed, lines_of: Lines, tmp_path: Path
) -> None:
    teacher = next((Path(taught_recipe.run.dir or "").parent / "teachers").iterdir())
    recipe = changed(
        taught_recipe,
        {
            **MIXED,
            "teacher.source": f"run:{teacher}",
            "optimization.clean_epochs": 1,
            "run.dir": str(tmp_path / "asked"),
        },
    )
    label_views(recipe, tmp_path / "store", LabelRequest(precision="float32"))
    asked = train(recipe).directory
    stored = {"teacher.labels": str(tmp_path / "store"), "run.dir": str(tmp_path / "read")}
    read = train(changed(recipe, stored)).directory
    assert (asked / "last.safetensors").read_bytes() == (read / "last.safetensors").read_bytes()
    with pytest.raises(InputError, match=r"views.mixup: 0.4 -> 0.2"):
        train(changed(recipe, {**stored, "views.mixup": 0.2, "run.dir": str(tmp_path / "other")}))


def test_the_teacher_to_be_trained_sees_single_images(taught_recipe: Recipe, changed: Changed) -> None:
    views = teacher_run_recipe(changed(taught_recipe, MIXED)).views
    assert (views.mixup, views.cutmix) == (0, 0)


@pytest.mark.parametrize(
    ("views", "supervision", "says"),
    [
        (Views(mixup=-0.1), Supervision(), r"views\.mixup is -0.1, but must be from 0 to 100"),
        (Views(cutmix=1000), Supervision(), r"views\.cutmix is 1000"),
        (Views(mixup=0.2), Supervision(label_trust=True), "label_trust is for views of one image"),
        (Views(cutmix=0.2), Supervision(drop_worst=0.2), "drop_worst is for views of one image"),
        (Views(cutmix=1.0), Supervision(divergence="decoupled"), "decoupled is for views of one image"),
    ],
)
def test_what_cannot_be_mixed_is_named(views: Views, supervision: Supervision, says: str) -> None:
    with pytest.raises(InputError, match=says):
        check(replace(Recipe(), views=views, supervision=supervision))
