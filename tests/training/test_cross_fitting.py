"""Several teachers: averaged, or cross-fitted (teacher.folds), where each judges the images it was not trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console
from support.recipes import with_settings
from torch import Tensor, nn

from kdaug import InputError
from kdaug.config import Recipe, check, read_recipe, split_source
from kdaug.data import load_dataset
from kdaug.data.images import fold_of_images
from kdaug.networks import InputFormat
from kdaug.supervision import Teacher, TeacherEnsemble
from kdaug.supervision.teacher import average_of
from kdaug.training import train
from kdaug.training.context import build_context
from kdaug.training.labeling import LabelRequest, label_views, teacher_digest
from kdaug.training.loop import train_teacher
from kdaug.training.resolve import resolve, teacher_run_recipes

TinyRecipe = Callable[..., Recipe]
FOLDED = {"teacher.source": "train", "teacher.folds": 3}


@given(labels=st.lists(st.integers(0, 3), max_size=60), folds=st.integers(2, 7))
def test_folds_split_every_class_evenly(labels: list[int], folds: int) -> None:
    of = np.array(labels, np.int64)
    fold = fold_of_images(of, folds)
    assert np.array_equal(fold, fold_of_images(of, folds))
    sizes = [np.bincount(fold[of == each], minlength=folds) for each in range(4)]
    assert all(size.max() - size.min() <= 1 for size in [*sizes, np.bincount(fold, minlength=folds)])


def test_folds_are_drawn_at_random() -> None:
    """Not in the order of the images: photos of one day are neighbors in a folder."""
    fold = fold_of_images(np.zeros(1000, np.int64), 2)
    assert 400 < np.sum(fold[:-1] != fold[1:]) < 600


class _Constant(nn.Module):
    """A network whose logits are the same for every image."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1)


def _teachers(*logits: list[float]) -> list[Teacher]:
    return [Teacher(_Constant(each), InputFormat((0.5,), (0.5,), None)) for each in logits]


VIEWS = torch.zeros(5, 8, 8, 1, dtype=torch.uint8)


def test_the_average_is_that_of_the_probabilities() -> None:
    logits = np.array([[3.0, 0.0, -1.0], [0.0, 2.0, 40.0]])
    ensemble = TeacherEnsemble(_teachers(*logits.tolist()))
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(ensemble(VIEWS).exp()[0].double(), probs.mean(0), rtol=1e-6)


def test_each_view_is_judged_by_the_teacher_of_its_fold() -> None:
    fold = np.array([1, 0, 2, 1, 0])
    ensemble = TeacherEnsemble(_teachers([0.0, 9.0], [1.0, 9.0], [2.0, 9.0]), fold)
    indices = np.array([3, 4, 0, 2, 1])
    assert ensemble(VIEWS, indices)[:, 0].tolist() == fold[indices].tolist()
    assert ensemble(VIEWS[:1], np.array([2]))[0].tolist() == [2.0, 9.0]  # the other teachers have no view


def test_images_that_no_teacher_knows_are_judged_by_the_average() -> None:
    members = _teachers([0.0, 9.0], [1.0, 2.0])
    ensemble, average = TeacherEnsemble(members, np.array([0, 1])), TeacherEnsemble(members)
    assert torch.equal(ensemble(VIEWS), average(VIEWS))
    assert torch.equal(average_of(ensemble)(VIEWS, np.array([0] * 5)), average(VIEWS))


def test_an_ensemble_stays_in_evaluation_mode() -> None:
    ensemble = TeacherEnsemble(_teachers([0.0, 1.0], [1.0, 0.0]))
    ensemble.train()
    assert not any(member.training or member.network.training for member in ensemble.members)


def test_digests_tell_teachers_apart() -> None:
    first, second = _teachers([0.0, 9.0], [1.0, 2.0])
    fold = np.array([0, 1])
    teachers = [
        first,
        second,
        *(TeacherEnsemble(m, f) for m in ([first, second], [second, first]) for f in (None, fold)),
    ]
    assert len({teacher_digest(each) for each in teachers}) == len(teachers)


def _images(recipe: Recipe) -> set[bytes]:
    train_images = load_dataset(recipe.data).train
    return {pixels.tobytes() for pixels in np.asarray(train_images.images)}  # type: ignore[attr-defined]


def test_no_teacher_judges_an_image_it_was_trained_on(tiny_recipe: TinyRecipe, console: Console) -> None:
    """The rows that a teacher gets are exactly the images that its own run left out."""
    recipe = resolve(tiny_recipe(FOLDED))
    context = build_context(recipe, console)
    fold = fold_of_images(context.dataset.train.labels, 3)
    everything = np.asarray(context.dataset.train.images)  # type: ignore[attr-defined]
    for position, teacher in enumerate(teacher_run_recipes(recipe)):
        trained_on = _images(teacher)
        judged = {pixels.tobytes() for pixels in everything[fold == position]}
        assert not judged & trained_on
        assert judged | trained_on == {pixels.tobytes() for pixels in everything}


def test_teachers_are_trained_once_and_shared(tiny_recipe: TinyRecipe, console: Console, tmp_path: Path) -> None:
    recipe = tiny_recipe(FOLDED)
    run = train(recipe, console).directory
    runs = sorted((run.parent / "teachers").iterdir())
    assert sorted(str(read_recipe(each / "recipe.yaml").data.omit_fold) for each in runs) == ["0/3", "1/3", "2/3"]
    before = {each: (each / "last.safetensors").stat().st_mtime_ns for each in runs}
    train(with_settings(recipe, {"run.dir": str(run.parent / "other"), "run.seed": 1, "teacher.seed": 0}), console)
    assert {each: (each / "last.safetensors").stat().st_mtime_ns for each in before} == before


def test_stored_labels_equal_those_of_the_cross_fitted_teacher(
    tiny_recipe: TinyRecipe, console: Console, tmp_path: Path
) -> None:
    """The store has the log-probabilities of the teacher that was trained without the image, and trains the same."""
    recipe = tiny_recipe({**FOLDED, "run.threads": 1, "optimization.precision": "float32"})
    store = tmp_path / "labels"
    request = LabelRequest(precision="float32")
    label_views(with_settings(recipe, {"run.dir": str(tmp_path / "unused")}), store, request)
    online = train(with_settings(recipe, {"run.dir": str(tmp_path / "online")}), console).directory
    settings = {"run.dir": str(tmp_path / "stored"), "teacher.labels": str(store)}
    stored = train(with_settings(recipe, settings), console).directory
    first, second = (safetensors.torch.load_file(run / "last.safetensors") for run in (online, stored))
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-3, atol=1e-4, msg=name)


def test_the_teachers_of_a_run_judge_out_of_sample(tiny_recipe: TinyRecipe, console: Console, tmp_path: Path) -> None:
    """`train_teacher` gives each image the network of the run that left it out."""
    context = build_context(resolve(tiny_recipe(FOLDED)), console)
    teacher = train_teacher(context, tmp_path / "run")
    assert isinstance(teacher, TeacherEnsemble)
    indices: NDArray[np.int64] = np.arange(len(context.dataset.train))
    pixels = torch.from_numpy(context.dataset.train.images[indices])  # type: ignore[attr-defined]
    together = teacher(pixels, indices)
    for position, own in enumerate(teacher_run_recipes(context.recipe)):
        rows = torch.from_numpy(np.flatnonzero(fold_of_images(context.dataset.train.labels, 3) == position))
        network = replace_network(teacher.members[position], Path(own.run.dir or ""))
        torch.testing.assert_close(together[rows], network(pixels[rows]))


def replace_network(member: Teacher, run: Path) -> Teacher:
    """`member` with the weights of `run`, read from its file."""
    member.network.load_state_dict(safetensors.torch.load_file(run / "last.safetensors"))
    return member


def test_a_student_of_two_runs(recipe_with_teacher: Recipe, teacher_run: Path, tiny_run: Path, tmp_path: Path) -> None:
    settings = {"run.dir": str(tmp_path / "run"), "teacher.source": f"run:{teacher_run},run:{tiny_run}"}
    console = Console(record=True, width=200)
    train(with_settings(recipe_with_teacher, settings), console)
    assert "average of 2 teachers: error" in console.export_text()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"teacher.folds": 1, "teacher.source": "train"}, "teacher.folds is 1, but must be from 2 to 100"),
        ({"teacher.folds": 3, "teacher.source": "run:a"}, "teacher.folds is 3, but has no effect with"),
        ({**FOLDED, "views.mixup": 0.2}, "teacher.folds cannot be combined with mixup"),
        ({"data.omit_fold": "3/3"}, "data.omit_fold is '3/3', but must be FOLD/FOLDS"),
        ({"data.omit_fold": "-1/3"}, "data.omit_fold is '-1/3'"),
        ({"data.omit_fold": "0/1"}, "data.omit_fold is '0/1'"),
        ({"data.omit_fold": "0/101"}, "data.omit_fold is '0/101'"),
        ({"data.omit_fold": "1/2/3"}, "data.omit_fold is '1/2/3'"),
        ({"data.omit_fold": "a/3"}, "data.omit_fold is 'a/3'"),
        ({"data.omit_fold": ""}, "data.omit_fold is ''"),
        ({"data.omit_fold": "00/3"}, "data.omit_fold is '00/3'"),
        ({"data.omit_fold": " 0/ 3"}, "data.omit_fold is ' 0/ 3'"),
        ({**FOLDED, "data.omit_fold": "0/5"}, "teacher.folds cannot be combined with data.omit_fold"),
        ({**FOLDED, "run.cuda_graphs": True}, "teacher.folds cannot be combined with run.cuda_graphs"),
        (
            {**FOLDED, "data.train_images": 100, "data.unlabelled": "unused"},
            "teacher.folds cannot be combined with data.unlabelled",
        ),
        ({"teacher.source": "run:a,train"}, "teacher.source is 'run:a,train'"),
        ({"teacher.source": "run:a,run:"}, "teacher.source is 'run:a,run:'"),
    ],
)
def test_impossible_settings(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        check(with_settings(Recipe(), settings))


@pytest.mark.parametrize("name", ["a, b", "cats,training-2", "a,bundled-1", "x,nonetheless"])
def test_a_comma_in_a_folder_name_is_not_a_separator(name: str) -> None:
    assert split_source(f"run:runs/{name}") == [f"run:runs/{name}"]
    assert split_source(f"run:runs/{name},bundled,file:b") == [f"run:runs/{name}", "bundled", "file:b"]
    assert split_source("run:a, run:b") == ["run:a", "run:b"]


def test_no_views_have_no_logits() -> None:
    """A batch whose images are all unreadable."""
    members = _teachers([0.0, 1.0], [1.0, 0.0])
    for teacher in (members[0], TeacherEnsemble(members), TeacherEnsemble(members, np.array([0, 1]))):
        assert teacher(VIEWS[:0], np.array([], np.int64)).shape == (0, 2)
