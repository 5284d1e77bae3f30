"""Images without labels: mixed into every batch by a stated share, and trained on with soft labels alone."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support.images import write_noise
from support.recipes import TINY, with_settings
from support.steps import before_each_step

from kdaug import InputError, config
from kdaug.config import Data, Recipe, check, derive_teacher_recipe
from kdaug.data import load_dataset
from kdaug.data.unlabelled import check_enough, mixed_order, read_unlabelled_folder
from kdaug.inference.evaluate import evaluation_of_run
from kdaug.runs import read_metrics
from kdaug.study.report.write import write_report
from kdaug.supervision import distillation_loss, soft_labels_from_logits
from kdaug.training import Interrupted, train
from kdaug.training.batches import training_batches
from kdaug.training.context import build_context, check_trainable
from kdaug.training.labeling import LabelRequest, label_views
from kdaug.training.resolve import resolve

TinyRecipe = Callable[..., Recipe]
UNUSED = {"data.train_images": 100, "data.unlabelled": "unused", "data.unlabelled_share": 0.75}


@given(
    labelled=st.integers(1, 60), unlabelled=st.integers(0, 300), batch=st.integers(2, 20), epoch=st.integers(0, 3),
    data=st.data(),
)  # fmt: skip
def test_every_batch_has_the_share(labelled: int, unlabelled: int, batch: int, epoch: int, data: st.DataObject) -> None:
    in_batch = data.draw(st.integers(1, batch - 1))
    steps = labelled // (batch - in_batch)
    if unlabelled < steps * in_batch:
        check_the_hint(labelled, unlabelled, batch, in_batch)
        return
    check_enough(labelled, unlabelled, batch, in_batch)
    order = mixed_order(labelled, unlabelled, batch, in_batch, 5, epoch)
    assert order.shape == (steps * batch,)
    assert len(set(order.tolist())) == len(order)
    assert order.max(initial=0) < labelled + unlabelled
    assert (np.sum(order.reshape(steps, batch) >= labelled, axis=1) == in_batch).all()
    assert np.array_equal(order, mixed_order(labelled, unlabelled, batch, in_batch, 5, epoch))


def check_the_hint(labelled: int, unlabelled: int, batch: int, in_batch: int) -> None:
    """The share that the error names works, and the next larger number of unlabelled images in a batch does not."""
    with pytest.raises(InputError, match="an epoch needs") as error:
        check_enough(labelled, unlabelled, batch, in_batch)
    share = re.search(r"set data.unlabelled_share to (\S+)", str(error.value))
    fits = [u for u in range(1, in_batch) if labelled // (batch - u) * u <= unlabelled]
    if share is None:
        assert "add images" in str(error.value)
        assert not fits
    else:
        assert round(float(share[1]) * batch) == max(fits)


def test_places_and_images_differ_between_epochs_and_seeds() -> None:
    """The unlabelled images are spread over the whole batch: ranks take consecutive parts of it."""
    orders = [mixed_order(400, 4_000, 40, 30, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({order.tobytes() for order in orders}) == 4
    drawn = [set(order[order >= 400].tolist()) for order in orders]
    assert len(drawn[0] & drawn[1]) < 1_150  # 1,200 of 4,000 each
    in_first_half = np.mean([order.reshape(-1, 40)[:, :20] >= 400 for order in orders])
    assert 0.7 < in_first_half < 0.8


def test_batches_have_labelled_and_unlabelled_images(tiny_recipe: TinyRecipe, console: Console) -> None:
    recipe = resolve(tiny_recipe({**UNUSED, "teacher.source": "train", "optimization.global_batch": 32}))
    context = build_context(recipe, console)
    whole = load_dataset(config.Data()).train
    assert len(context.dataset.train) == 100
    assert context.dataset.unlabelled is not None
    assert len(context.dataset.unlabelled) == len(whole) - 100
    labelled = {image.tobytes() for image in context.dataset.train.images}  # type: ignore[attr-defined]
    assert not labelled & {image.tobytes() for image in context.dataset.unlabelled.images}  # type: ignore[attr-defined]
    batches = list(training_batches(context, 0))
    assert len(batches) == context.steps == 12 * context.epochs
    for batch in batches:
        assert int((batch.labels == -1).sum()) == 24
        known = batch.key.indices < 100
        assert np.array_equal(batch.labels.numpy()[known], context.dataset.train.labels[batch.key.indices[known]])


def test_too_few_labelled_images_for_a_batch_name_a_share_that_works(tiny_recipe: TinyRecipe, console: Console) -> None:
    settings = {**UNUSED, "teacher.source": "train", "optimization.global_batch": 64, "data.train_images": 10}
    with pytest.raises(
        InputError, match=r"labelled images, but there are 10; set data.unlabelled_share to at least 0\.85"
    ):
        check_trainable(build_context(resolve(tiny_recipe({**settings, "data.unlabelled_share": 0.5})), console))
    check_trainable(build_context(resolve(tiny_recipe({**settings, "data.unlabelled_share": 0.85})), console))


def test_the_loss_without_a_label_is_the_divergence_alone() -> None:
    settings = config.Supervision(label_smoothing=0.1)
    student, teacher = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, -1, 2, -1, 3, 1])
    losses = distillation_loss(settings, student, soft_labels_from_logits(teacher, settings, labels), labels)
    assert losses.divergence is not None
    missing = labels == -1
    assert (losses.cross_entropy[missing] == 0).all()
    assert (losses.cross_entropy[~missing] > 0).all()
    torch.testing.assert_close(losses.loss[missing], settings.weight * losses.divergence[missing])
    complete = distillation_loss(
        settings, student, soft_labels_from_logits(teacher, settings, labels.clamp(min=0)), labels
    )
    torch.testing.assert_close(losses.divergence, complete.divergence)


def test_stored_labels_train_the_same(
    tiny_recipe: TinyRecipe, teacher_run: Path, console: Console, tmp_path: Path
) -> None:
    settings = {"optimization.precision": "float32", "run.threads": 1, "teacher.source": f"run:{teacher_run}"}
    recipe = tiny_recipe({**UNUSED, **settings, "optimization.global_batch": 32, "data.unlabelled_share": 0.5})
    store = tmp_path / "labels"
    label_views(with_settings(recipe, {"run.dir": str(tmp_path / "x")}), store, LabelRequest(precision="float32"))
    runs = [
        train(with_settings(recipe, {"run.dir": str(tmp_path / name), **more}), console).directory
        for name, more in (("online", {}), ("stored", {"teacher.labels": str(store)}))
    ]
    online, stored = (safetensors.torch.load_file(run / "last.safetensors") for run in runs)
    for name, value in online.items():
        torch.testing.assert_close(value, stored[name], rtol=1e-3, atol=1e-4, msg=name)


def test_a_stopped_run_continues_bit_for_bit(
    tiny_recipe: TinyRecipe, teacher_run: Path, console: Console, tmp_path: Path
) -> None:
    recipe = tiny_recipe({**UNUSED, "teacher.source": f"run:{teacher_run}", "run.threads": 1})
    whole = train(with_settings(recipe, {"run.dir": str(tmp_path / "whole")}), console).directory

    def stop(step: int, *_: Any) -> None:
        if step == 3:
            signal.raise_signal(signal.SIGTERM)

    stopped = with_settings(recipe, {"run.dir": str(tmp_path / "stopped")})
    with before_each_step(stop), pytest.raises(Interrupted):
        train(stopped, console)
    resumed = train(with_settings(stopped, {"run.resume": True}), console).directory
    assert (whole / "last.safetensors").read_bytes() == (resumed / "last.safetensors").read_bytes()


def test_the_teacher_is_trained_on_labelled_images_only(tiny_recipe: TinyRecipe) -> None:
    recipe = tiny_recipe({**UNUSED, "teacher.source": "train"})
    assert derive_teacher_recipe(recipe).data == replace(Data(), train_images=100)
    run = train(recipe).directory
    (teacher,) = (run.parent / "teachers").iterdir()
    steps = {path: max(line["step"] for line in read_metrics(path)) for path in (run, teacher)}
    batch, epochs = recipe.optimization.global_batch, recipe.optimization.epochs
    assert steps == {teacher: 100 // batch * epochs, run: 100 // (batch - round(0.75 * batch)) * epochs}


def test_the_share_is_no_setting_of_the_teacher(tiny_recipe: TinyRecipe) -> None:
    recipes = [tiny_recipe({**UNUSED, "teacher.source": "train", "data.unlabelled_share": s}) for s in (0.25, 0.5)]
    assert derive_teacher_recipe(recipes[0]) == derive_teacher_recipe(recipes[1])


def test_a_folder_of_photos_without_labels(console: Console, tmp_path: Path) -> None:
    """Images in sub-folders of any depth are found; other files are not; new images are noticed."""
    write_noise(tmp_path / "more" / "a", {"b": 30})
    (tmp_path / "more" / "notes.txt").write_text("x")
    images, names = read_unlabelled_folder(tmp_path / "more", tmp_path / "photos")
    assert len(images) == len(names) == 30
    assert all(name.startswith(b"a/b/") for name in names)
    settings = {
        "data.name": "folder", "data.root": str(write_noise(tmp_path / "photos", {"a": 12, "b": 12})),
        "data.train_images": None, "data.image_size": 16, "data.workers": 0, "student.name": "small_convnet",
        "optimization.global_batch": 8, "data.unlabelled": str(tmp_path / "more"), "teacher.source": "train",
        "run.dir": str(tmp_path / "run"),
    }  # fmt: skip
    recipe = with_settings(TINY, settings)
    run = train(recipe, console).directory
    write_report([run], None, tmp_path / "report")
    assert "- Images without labels, in addition: 30.\n" in (tmp_path / "report" / "report.md").read_text()
    context = build_context(resolve(recipe), console)
    batch = next(iter(training_batches(context, 0)))
    unlabelled = batch.key.indices >= len(context.dataset.train)
    assert (batch.labels.numpy()[unlabelled] == -1).all()
    assert unlabelled.sum() == 4
    reads = [context.train_images.name_of(int(index)) for index in batch.key.indices[unlabelled]]
    assert all(name.startswith(str(tmp_path / "more" / "a" / "b")) for name in reads)
    # The run can be evaluated without them, and resumed from another place, but not with other images.
    (tmp_path / "more").rename(tmp_path / "moved")
    assert evaluation_of_run(run, "last", None, "cpu", None).scores.images == 2
    moved = with_settings(recipe, {"data.unlabelled": str(tmp_path / "moved"), "run.resume": True})
    assert train(moved, console).directory == run
    (run / "last.safetensors").unlink()
    write_noise(tmp_path / "moved", {"new": 1})
    with pytest.raises(InputError, match="the dataset has changed"):
        train(moved, console)


def test_bad_folders_are_named(tmp_path: Path) -> None:
    photos = write_noise(tmp_path / "photos", {"a": 1})
    with pytest.raises(InputError, match=r"folder .*nowhere does not exist"):
        read_unlabelled_folder(tmp_path / "nowhere", photos)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"folder .* has no images"):
        read_unlabelled_folder(tmp_path / "empty", photos)
    for folder in (photos, tmp_path, photos / "a"):
        with pytest.raises(InputError, match=r"overlaps with .*photos, whose images have labels"):
            read_unlabelled_folder(folder, photos)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"data.unlabelled": ""}, "data.unlabelled is empty"),
        ({"teacher.source": "none"}, "data.unlabelled is set, but there is no teacher"),
        ({"data.train_images": None}, "data.unlabelled is 'unused', but for bundled it must be unused"),
        ({"data.unlabelled": "folder"}, "data.unlabelled is 'folder', but for bundled it must be unused"),
        ({"data.name": "shards"}, "data.unlabelled is not for data.name shards"),
        ({"data.measure_unused": True}, "data.unlabelled cannot be combined with data.measure_unused"),
        ({"data.balance": "loss"}, "data.unlabelled cannot be combined with data.balance loss"),
        ({"supervision.weight": 0.0}, "data.unlabelled cannot be combined with supervision.weight 0"),
        ({"data.unlabelled": None}, "data.unlabelled_share has no effect without data.unlabelled"),
        ({"views.cutmix": 1.0}, "data.unlabelled cannot be combined with mixup or CutMix"),
        ({"supervision.drop_worst": 0.5}, "data.unlabelled cannot be combined with supervision.drop_worst"),
        ({"supervision.min_confidence": 0.5}, "data.unlabelled cannot be combined with supervision.min_confidence"),
        ({"supervision.divergence": "decoupled"}, "data.unlabelled cannot be combined with supervision.divergence"),
        ({"supervision.label_trust": True}, "data.unlabelled cannot be combined with supervision.label_trust"),
    ],
)
def test_impossible_combinations(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        check(with_settings(Recipe(), {**UNUSED, "teacher.source": "train", **settings}))
