"""The loop: a run is a pure function of its recipe, learns what the paper's loss says, and survives being stopped."""

from __future__ import annotations

import itertools
import math
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from kdaug import InputError, apply, create_policy
from kdaug.config import Recipe, read_recipe
from kdaug.data import Dataset, load_dataset
from kdaug.rng import permutation
from kdaug.supervision import Teacher
from kdaug.training import Interrupted, loop, train
from kdaug.training import context as preparation
from kdaug.training.batches import training_batches
from kdaug.training.evaluation import Scores
from kdaug.training.resolve import resolve
from kdaug.training.step import train_step
from kdaug.views.policies import Cutout, Flip, PadCrop, Sequential

Tiny = Callable[..., Recipe]
Lines = Callable[[Path], list[dict[str, Any]]]
Changed = Callable[[Recipe, dict[str, Any]], Recipe]


def weights(run: Path, name: str = "last") -> bytes:
    return (run / f"{name}.safetensors").read_bytes()


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of `folder` with its bytes and the time it was written."""
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()}


# What a run leaves


def test_a_run_leaves_exactly_its_files(taught: Path) -> None:
    names = "recipe.yaml environment.json metrics.jsonl tensorboard checkpoints best.safetensors last.safetensors .lock"
    assert {p.name for p in taught.iterdir()} == set(names.split())
    assert sorted(p.name for p in (taught / "checkpoints").iterdir()) == ["step-00000004", "step-00000008"]
    assert [p.name.split(".")[:3] for p in (taught / "tensorboard").iterdir()] == [["events", "out", "tfevents"]]


def test_every_step_is_one_line_whose_loss_is_its_parts_and_whose_rate_is_on_the_cosine(
    taught: Path, taught_recipe: Recipe, lines_of: Lines
) -> None:
    lines = lines_of(taught)
    assert [line["kind"] for line in lines] == [*["step"] * 4, "eval", *["step"] * 4, "eval", "end"]
    steps = [line for line in lines if line["kind"] == "step"]
    assert [(line["step"], line["epoch"]) for line in steps] == [(s, (s - 1) // 4) for s in range(1, 9)]
    for line in steps:
        parts = line["cross_entropy"] + taught_recipe.supervision.weight * line["divergence"]
        assert line["loss"] == pytest.approx(parts, rel=1e-6)
        assert line["divergence"] != 0
        assert line["learning_rate"] == pytest.approx(0.1 * (1 + math.cos(math.pi * (line["step"] - 1) / 8)) / 2)


def test_the_end_repeats_the_last_evaluation_and_the_best_error_is_the_lowest(taught: Path, lines_of: Lines) -> None:
    *_, end = lines = lines_of(taught)
    evaluations = [line for line in lines if line["kind"] == "eval"]
    assert [(line["step"], line["epoch"]) for line in evaluations] == [(4, 0), (8, 1)]
    for name in ("step", "epoch", "top1_error", "top5_error", "val_loss", "images"):
        assert end[name] == evaluations[-1][name]
    assert end["best_top1_error"] == min(line["top1_error"] for line in evaluations)


@pytest.mark.parametrize(("every", "at"), [(1, [4, 8, 12]), (2, [8, 12]), (3, [12]), (9, [12])])
def test_evaluations_come_every_so_many_epochs_and_at_the_end(
    tiny: Tiny, lines_of: Lines, every: int, at: list[int]
) -> None:
    outcome = train(tiny({"optimization.epochs": 3, "run.evaluate_every": every}))
    assert [line["step"] for line in lines_of(outcome.directory) if line["kind"] == "eval"] == at


# What is learned


def plan_of_batch(recipe: Recipe, dataset: Dataset, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Views and labels of a step (from 0), drawn and carried out anew."""
    count, batch = len(dataset.train), recipe.optimization.global_batch
    epoch, position = divmod(step, count // batch)
    seed = recipe.run.seed if recipe.views.seed is None else recipe.views.seed
    indices = permutation(seed, epoch, count)[position * batch :][:batch]
    mean = dataset.fill
    policy = Sequential([create_policy(recipe.views.policy, mean=mean), PadCrop(4, mean), Flip(), Cutout(6, mean)])
    plan = policy.plan(seed, epoch, indices, dataset.size)
    return apply(dataset.train.images[indices], plan), dataset.train.labels[indices]


def normalised(images: np.ndarray, dataset: Dataset) -> np.ndarray:
    return (images / 255 - np.array(dataset.mean)) / np.array(dataset.std)


@pytest.fixture
def teacher_file(tmp_path: Path) -> Path:
    """Weights of a softmax regression that is sure of itself."""
    generator = torch.Generator().manual_seed(5)
    tensors = {"fc.weight": torch.randn(10, 784, generator=generator) / 9, "fc.bias": torch.zeros(10)}
    safetensors.torch.save_file(tensors, tmp_path / "teacher.safetensors")
    return tmp_path / "teacher.safetensors"


SEEDS = {"run.seed": 3, "views.seed": 7, "views.cutout": 6, "data.train_images": 250}


def test_student_and_teacher_see_the_views_that_the_policy_plans(
    tiny: Tiny, each_step: Callable, teacher_file: Path
) -> None:
    recipe = tiny({**SEEDS, "teacher.source": f"file:{teacher_file}"})
    seen: dict[str, list[Tensor]] = {"student": [], "teacher": []}

    def see_teacher(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if isinstance(module, Teacher) and len(inputs[0]) == 64:  # evaluations come in batches of other sizes
            seen["teacher"].append(inputs[0])

    handle = register_module_forward_pre_hook(see_teacher)
    with each_step(lambda step, student, x: seen["student"].append(x)):
        train(recipe)
    handle.remove()

    dataset = load_dataset(recipe.data)
    assert len(seen["student"]) == len(seen["teacher"]) == 6
    for step in range(6):
        views, _ = plan_of_batch(recipe, dataset, step)
        np.testing.assert_array_equal(seen["teacher"][step].numpy(), views)
        shown = seen["student"][step].permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(shown, normalised(views, dataset), atol=1e-5)


@pytest.mark.parametrize("weight", [None, 0.7])
def test_a_run_is_what_the_formulas_give_in_float64(
    tiny: Tiny, each_step: Callable, teacher_file: Path, lines_of: Lines, weight: float | None
) -> None:
    """Softmax regression by hand: cross-entropy + weight T^2 p ln(p / q) over the top 3, clip, decay, Nesterov."""
    settings = {
        **SEEDS, "optimization.clip_norm": 1.5, "optimization.weight_decay": 0.03, "optimization.momentum": 0.8,
    }  # fmt: skip
    if weight is not None:
        settings |= {
            "teacher.source": f"file:{teacher_file}", "supervision.weight": weight, "supervision.k": 3,
            "supervision.temperature": 4.0,
        }  # fmt: skip
    recipe, first = tiny(settings), {}
    with each_step(lambda step, student, x: first or first.update(cloned(student))):
        outcome = train(recipe)

    dataset = load_dataset(recipe.data)
    w = np.hstack([first["fc.weight"].double().numpy(), first["fc.bias"].double().numpy()[:, None]])
    taught = safetensors.torch.load_file(teacher_file)["fc.weight"].double().numpy()
    velocity, losses = np.zeros_like(w), []
    for step in range(6):
        views, labels = plan_of_batch(recipe, dataset, step)
        x = normalised(views, dataset).reshape(64, 784)
        x1 = np.hstack([x, np.ones((64, 1))])
        logits = x1 @ w.T
        toward = softmax(logits) - np.eye(10)[labels]
        loss = -np.log(softmax(logits)[np.arange(64), labels]).mean()
        if weight is not None:
            top = np.argsort(-(x @ taught.T), axis=1)[:, :3]
            p, q = softmax(x @ taught.T / 4), softmax(logits / 4)
            kept = np.zeros_like(p)
            np.put_along_axis(kept, top, np.take_along_axis(p, top, 1), 1)
            loss += weight * 16 * (kept * np.log(p / q)).sum(1).mean()
            toward = toward + weight * 4 * (q * kept.sum(1, keepdims=True) - kept)
        losses.append(loss)
        gradient = toward.T @ x1 / 64
        gradient *= min(1, 1.5 / np.linalg.norm(gradient))
        gradient += 0.03 * w
        velocity = 0.8 * velocity + gradient
        w = w - 0.05 * (1 + math.cos(math.pi * step / 6)) / 2 * (gradient + 0.8 * velocity)

    assert [s["loss"] for s in lines_of(outcome.directory) if s["kind"] == "step"] == pytest.approx(losses, rel=1e-4)
    got = safetensors.torch.load_file(outcome.directory / "last.safetensors")
    np.testing.assert_allclose(got["fc.weight"].numpy(), w[:, :-1], atol=2e-5)
    np.testing.assert_allclose(got["fc.bias"].numpy(), w[:, -1], atol=2e-5)


def cloned(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def test_a_divergence_of_weight_0_teaches_nothing(tiny: Tiny, tmp_path: Path, teacher_file: Path) -> None:
    """Nor does the teacher's presence draw from the generator that the student's dropout draws from."""
    student = {"student.name": "softmax_regression_dropout"}
    told = {
        "teacher.source": f"file:{teacher_file}",
        "teacher.network": "softmax_regression",
        "supervision.weight": 0.0,
    }
    alone = train(tiny({**student, "run.dir": str(tmp_path / "alone")}))
    beside = train(tiny({**student, **told, "run.dir": str(tmp_path / "beside")}))
    assert weights(alone.directory) == weights(beside.directory)


def test_a_teacher_of_any_weight_teaches_something(tiny: Tiny, tmp_path: Path, teacher_file: Path) -> None:
    told = {"teacher.source": f"file:{teacher_file}", "supervision.weight": 0.01}
    alone = train(tiny({"run.dir": str(tmp_path / "alone")}))
    beside = train(tiny({**told, "run.dir": str(tmp_path / "beside")}))
    assert weights(alone.directory) != weights(beside.directory)


def test_the_seed_of_the_run_changes_the_start_and_that_of_the_views_does_not(
    tiny: Tiny, tmp_path: Path, each_step: Callable
) -> None:
    def start(name: str, **seeds: int) -> Tensor:
        starts: list[Tensor] = []
        settings = {f"{part}.seed": seed for part, seed in seeds.items()}
        with each_step(lambda step, student, x: starts.append(student.fc.weight.detach().clone())):
            train(tiny({**settings, "run.dir": str(tmp_path / name), "optimization.epochs": 1}))
        return starts[0]

    reference = start("a", run=1, views=1)
    assert torch.equal(start("b", run=1, views=2), reference)
    assert not torch.equal(start("c", run=2, views=1), reference)


# What training needs besides


def test_a_batch_taken_in_parts_teaches_what_the_whole_does(tiny: Tiny, tmp_path: Path, lines_of: Lines) -> None:
    """Gradients are added up, so but for rounding nothing changes where no batch norm sees less at once."""
    whole = train(tiny({"run.dir": str(tmp_path / "whole")})).directory
    parts = train(tiny({"run.dir": str(tmp_path / "parts"), "run.device_batch": 16})).directory
    one, other = (safetensors.torch.load_file(run / "last.safetensors") for run in (whole, parts))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-6)
    assert [line["loss"] for line in lines_of(parts) if line["kind"] == "step"] == pytest.approx(
        [line["loss"] for line in lines_of(whole) if line["kind"] == "step"], rel=1e-5
    )


def test_a_part_is_what_the_network_sees_at_once(tiny: Tiny, each_step: Callable) -> None:
    sizes: list[int] = []
    with each_step(lambda step, student, x: sizes.append(len(x))):
        train(tiny({"run.device_batch": 16, "optimization.epochs": 1}))
    assert sizes == [16] * 16


def test_the_smoothed_label_is_what_the_loss_says(tiny: Tiny, each_step: Callable, lines_of: Lines) -> None:
    """The first loss by hand, from the weights and the input of the first step."""
    first: list[Any] = []
    with each_step(lambda step, student, x: first or first.extend([cloned(student), x.clone()])):
        recipe = tiny({"supervision.label_smoothing": 0.2, "optimization.epochs": 1})
        run = train(recipe).directory
    weights_, x = first
    logits = x.flatten(1).double() @ weights_["fc.weight"].double().T + weights_["fc.bias"].double()
    _, labels = plan_of_batch(replace(recipe, views=replace(recipe.views, seed=0)), load_dataset(recipe.data), 0)
    target = np.full((64, 10), 0.02)
    target[np.arange(64), labels] += 0.8
    wanted = -(target * logits.log_softmax(1).numpy()).sum(1).mean()
    assert lines_of(run)[0]["loss"] == pytest.approx(wanted, rel=1e-5)


def test_the_clean_epochs_at_the_end_see_crop_and_flip_alone(tiny: Tiny, each_step: Callable, lines_of: Lines) -> None:
    seen: list[Tensor] = []
    recipe = tiny({**SEEDS, "optimization.clean_epochs": 1})
    with each_step(lambda step, student, x: seen.append(x.clone())):
        run = train(recipe).directory
    dataset, seed = load_dataset(recipe.data), recipe.views.seed
    clean = Sequential([PadCrop(4, dataset.fill), Flip()])
    assert len(seen) == 9
    for position in range(3):
        indices = permutation(seed, 2, 250)[position * 64 :][:64]
        views = apply(dataset.train.images[indices], clean.plan(seed, 2, indices, dataset.size))
        shown = seen[6 + position].permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(shown, normalised(views, dataset), atol=1e-5)
    rates = [line["learning_rate"] for line in lines_of(run) if line["kind"] == "step"]
    assert rates[6:] == pytest.approx([0.0025 * (1 + math.cos(math.pi * step / 3)) for step in range(3)])
    assert lines_of(run)[-1]["epoch"] == 2


@pytest.mark.parametrize(
    ("when", "under_policy", "in_clean"), [("all", True, True), ("policy", True, False), ("clean", False, True)]
)
def test_the_teacher_looks_on_when_it_is_told_to(
    tiny: Tiny, lines_of: Lines, teacher_file: Path, when: str, under_policy: bool, in_clean: bool
) -> None:
    recipe = tiny(
        {
            "teacher.source": f"file:{teacher_file}",
            "optimization.clean_epochs": 1,
            "optimization.epochs": 1,
            "supervision.when": when,
        }
    )
    told = ["divergence" in line for line in lines_of(train(recipe).directory) if line["kind"] == "step"]
    assert told == [under_policy] * 4 + [in_clean] * 4


def test_a_teacher_to_be_trained_has_no_clean_epochs_of_its_own(tiny: Tiny) -> None:
    run = train(tiny({"teacher.source": "train", "optimization.epochs": 1, "optimization.clean_epochs": 1})).directory
    (teacher,) = (run.parent / "teachers").iterdir()
    assert read_recipe(teacher / "recipe.yaml").optimization.clean_epochs == 0


def test_the_averaged_weights_are_those_that_are_evaluated_and_kept(tiny: Tiny, tmp_path: Path) -> None:
    """With a decay so long that the average of eight steps lags behind, as (1 + n) / (10 + n) has it."""
    plain = train(tiny({"run.dir": str(tmp_path / "plain"), "run.checkpoint_steps": 1})).directory
    run = train(tiny({"optimization.ema_decay": 0.9999, "run.checkpoint_steps": 1})).directory
    newest = run / "checkpoints" / "step-00000008"
    average = safetensors.torch.load_file(newest / "average.safetensors")
    last, raw = (
        safetensors.torch.load_file(path) for path in (run / "last.safetensors", newest / "weights.safetensors")
    )
    assert all(torch.equal(last[name], average[name]) for name in last)
    assert not torch.equal(last["fc.weight"], raw["fc.weight"])
    assert torch.equal(raw["fc.weight"], safetensors.torch.load_file(plain / "last.safetensors")["fc.weight"])


def test_images_are_evaluated_at_the_size_asked_for(tiny: Tiny) -> None:
    sizes: set[tuple[bool, int, int]] = set()

    def note(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if type(module).__name__ == "SmallConvNet":
            sizes.add((module.training, *inputs[0].shape[2:]))

    handle = register_module_forward_pre_hook(note)
    train(tiny({"student.name": "small_convnet", "run.evaluate_size": 36, "optimization.epochs": 1}))
    handle.remove()
    assert sizes == {(True, 28, 28), (False, 36, 36)}


def test_rates_and_recomputation_reach_the_network(tiny: Tiny, each_step: Callable) -> None:
    made: list[Any] = []
    settings = {
        "student.name": "droppable_convnet", "student.drop_path": 0.2, "student.dropout": 0.3,
        "run.grad_checkpointing": True, "optimization.epochs": 1,
    }  # fmt: skip
    with each_step(lambda step, student, x: made.append((student.rates, student.recomputes))):
        train(tiny(settings))
    assert set(made) == {((0.2, 0.3), True)}


def test_a_real_network_recomputed_in_the_backward_pass_learns_the_same(tiny: Tiny, tmp_path: Path) -> None:
    settings = {"student.name": "wide_resnet10_1", "data.train_images": 128, "optimization.epochs": 1}
    kept = train(tiny({**settings, "run.dir": str(tmp_path / "kept")})).directory
    again = train(tiny({**settings, "run.dir": str(tmp_path / "again"), "run.grad_checkpointing": True})).directory
    one, other = (safetensors.torch.load_file(run / "last.safetensors") for run in (kept, again))
    for name in (name for name in one if "running" not in name and "num_batches" not in name):
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"student.drop_path": 0.2}, "network softmax_regression_strict knows no student.drop_path; leave it at 0"),
        ({"run.grad_checkpointing": True}, "network softmax_regression_strict cannot do run.grad_checkpointing"),
    ],
)
def test_what_a_network_does_not_know_is_refused(tiny: Tiny, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        train(tiny({**settings, "student.name": "softmax_regression_strict"}))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_much_the_same(tiny: Tiny, tmp_path: Path, lines_of: Lines, precision: str) -> None:
    settings = {"student.name": "small_convnet", "optimization.epochs": 1}
    exact = train(tiny({**settings, "run.dir": str(tmp_path / "exact")})).directory
    half = train(tiny({**settings, "run.dir": str(tmp_path / "half"), "optimization.precision": precision})).directory
    one, other = ([s["loss"] for s in lines_of(run) if s["kind"] == "step"] for run in (exact, half))
    assert one != other
    assert other == pytest.approx(one, rel=0.02)


@pytest.mark.slow
def test_a_compiled_network_learns_the_same_and_resumes_bit_for_bit(
    tiny: Tiny, tmp_path: Path, lines_of: Lines
) -> None:
    settings = {"student.name": "wide_resnet10_1", "optimization.epochs": 1, "optimization.learning_rate": 0.01}
    losses = []
    for compiled in (False, True):
        recipe = tiny({**settings, "run.compile": compiled, "run.dir": str(tmp_path / f"{compiled}")})
        losses.append([line["loss"] for line in lines_of(train(recipe).directory) if line["kind"] == "step"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert losses[1] != losses[0]

    noisy = {"student.name": "small_convnet", "run.compile": True, "run.resume": True}  # its dropout draws otherwise
    whole = train(tiny({**noisy, "run.dir": str(tmp_path / "whole")})).directory
    count, train_step = itertools.count(1), loop.learn

    def stop_at_3(*arguments: Any) -> Any:  # a hook within the network would be compiled with it
        if next(count) == 3:
            signal.raise_signal(signal.SIGINT)
        return train_step(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", stop_at_3)
        with pytest.raises(Interrupted):
            train(tiny(noisy))
    assert_same_run(train(tiny(noisy)).directory, whole, lines_of)


def test_a_checkpoint_comes_every_so_many_steps(tiny: Tiny, each_step: Callable) -> None:
    recipe = tiny({"run.checkpoint_steps": 3, "run.checkpoint_minutes": 60.0, "optimization.epochs": 3})
    seen: list[list[str]] = []

    def note(step: int, student: nn.Module, x: Tensor) -> None:
        seen.append(sorted(p.name[-2:] for p in (Path(recipe.run.dir) / "checkpoints").glob("step-*")))

    with each_step(note):
        train(recipe)
    newest = [int(names[-1]) if names else 0 for names in seen]
    assert newest == [0, 0, 0, 3, 4, 4, 6, 6, 8, 9, 9, 9]  # every third step, and at each evaluation


# The same recipe, the same run


def test_the_same_recipe_gives_the_same_bits_teacher_included(
    taught: Path, taught_recipe: Recipe, changed: Changed, tmp_path: Path, lines_of: Lines
) -> None:
    again = train(changed(taught_recipe, {"run.dir": str(tmp_path / "other")})).directory
    for name in ("last", "best"):
        assert weights(again, name) == weights(taught, name)
    (teacher,), (same_teacher,) = (list((run.parent / "teachers").iterdir()) for run in (taught, again))
    assert teacher.name == same_teacher.name
    assert weights(teacher) == weights(same_teacher)
    assert without_seconds(lines_of(again)) == without_seconds(lines_of(taught))


def test_a_run_can_be_trained_again_from_the_recipe_it_wrote_with_the_teacher_it_shares(
    taught: Path, changed: Changed, each_step: Callable
) -> None:
    (teacher,) = (taught.parent / "teachers").iterdir()
    before, steps = content(teacher), []
    recipe = changed(read_recipe(taught / "recipe.yaml"), {"run.dir": str(taught.parent / "again")})
    with each_step(lambda step, student, x: steps.append(step)):
        again = train(recipe).directory
    assert weights(again) == weights(taught)
    assert len(steps) == 8, "the teacher must not be trained again"
    assert list((taught.parent / "teachers").iterdir()) == [teacher]
    assert content(teacher) == before


def test_the_teacher_ends_as_it_began(taught: Path, taught_recipe: Recipe, changed: Changed, tmp_path: Path) -> None:
    """Neither its weights nor the running statistics of its batch norms move while the student learns."""
    (directory,) = (taught.parent / "teachers").iterdir()
    teachers: set[Teacher] = set()
    handle = register_module_forward_pre_hook(lambda m, _: teachers.add(m) if isinstance(m, Teacher) else None)
    train(changed(taught_recipe, {"run.dir": str(tmp_path / "run"), "teacher.source": f"run:{directory}"}))
    handle.remove()
    (teacher,) = teachers
    began = safetensors.torch.load_file(directory / "last.safetensors")
    ended = teacher.network.state_dict()
    assert began.keys() == ended.keys()
    assert all(torch.equal(began[name], ended[name]) for name in began)


# Stopped and resumed


def without_seconds(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def train_until(recipe: Recipe, each_step: Callable, stop_at: int, console: Console | None = None) -> Interrupted:
    """Trains and sends this process SIGINT while step `stop_at` (of this part of the run) is computed."""

    def interrupt(step: int, student: nn.Module, x: Tensor) -> None:
        if step == stop_at:
            signal.raise_signal(signal.SIGINT)

    with each_step(interrupt), pytest.raises(Interrupted) as stopped:
        train(recipe, console)
    return stopped.value


DROPOUT = {"student.name": "softmax_regression_dropout", "run.resume": True}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Recipe, changed: Changed) -> Path:
    """A run with dropout that nobody stopped."""
    return train(changed(tiny_recipe, {**DROPOUT, "run.dir": str(tmp_path_factory.mktemp("whole") / "run")})).directory


def assert_same_run(run: Path, uninterrupted: Path, lines_of: Lines) -> None:
    for name in ("last", "best"):
        assert weights(run, name) == weights(uninterrupted, name)
    assert without_seconds(lines_of(run)) == without_seconds(lines_of(uninterrupted))


@pytest.mark.parametrize("stop_at", range(1, 9))
def test_stopped_after_any_step_and_resumed_a_run_is_as_if_never_stopped(
    tiny: Tiny, each_step: Callable, uninterrupted: Path, lines_of: Lines, console: Console, stop_at: int
) -> None:
    recipe = tiny(DROPOUT)
    stopped = train_until(recipe, each_step, stop_at, console)
    assert max(p.name for p in (stopped.directory / "checkpoints").iterdir()) == f"step-{stop_at:08d}"
    assert [s["step"] for s in lines_of(stopped.directory) if s["kind"] == "step"] == list(range(1, stop_at + 1))
    torch.manual_seed(99)  # a new process starts from anything
    run = train(recipe, console).directory
    assert f"continuing at step {stop_at} of 8" in console.file.getvalue()
    assert_same_run(run, uninterrupted, lines_of)


def test_stopped_after_every_single_step_a_run_is_as_if_never_stopped(
    tiny: Tiny, each_step: Callable, uninterrupted: Path, lines_of: Lines
) -> None:
    for _ in range(8):
        train_until(tiny(DROPOUT), each_step, stop_at=1)
    assert_same_run(train(tiny(DROPOUT)).directory, uninterrupted, lines_of)


def test_the_seconds_of_a_run_are_those_of_all_its_stretches(tiny: Tiny, each_step: Callable, lines_of: Lines) -> None:
    def linger_then_interrupt(step: int, student: nn.Module, x: Tensor) -> None:
        time.sleep(1.5)
        signal.raise_signal(signal.SIGINT)

    with each_step(linger_then_interrupt), pytest.raises(Interrupted):
        train(tiny(DROPOUT))
    assert 1.5 < lines_of(train(tiny(DROPOUT)).directory)[-1]["seconds"] < 15


def test_a_convolutional_network_with_a_teacher_stopped_amid_an_epoch_goes_on_bit_for_bit(
    taught: Path, taught_recipe: Recipe, changed: Changed, each_step: Callable, lines_of: Lines
) -> None:
    recipe = changed(taught_recipe, {"run.dir": str(taught.parent / "stopped"), "run.resume": True})
    train_until(recipe, each_step, stop_at=2)
    train_until(recipe, each_step, stop_at=4)
    assert_same_run(train(recipe).directory, taught, lines_of)


def test_a_network_that_shakes_its_branches_stopped_amid_an_epoch_goes_on_bit_for_bit(
    tiny: Tiny, each_step: Callable, tmp_path: Path, lines_of: Lines
) -> None:
    settings = {"student.name": "shaken_convnet", "run.resume": True}
    whole = train(tiny({**settings, "run.dir": str(tmp_path / "whole")})).directory
    train_until(tiny(settings), each_step, stop_at=2)
    torch.manual_seed(99)  # a new process starts from anything
    assert_same_run(train(tiny(settings)).directory, whole, lines_of)


@pytest.mark.parametrize("workers", [0, 1])
def test_photos_under_dropout_stopped_amid_an_epoch_go_on_bit_for_bit(
    tiny: Tiny, each_step: Callable, tmp_path: Path, lines_of: Lines, workers: int
) -> None:
    """Reading files anew must not draw from the generator that the student's dropout draws from."""
    random = np.random.default_rng(2)
    for name in ("a", "b", "c"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(12):
            pixels = random.integers(0, 256, (30, 36, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    settings = {
        "data.name": "folder", "data.root": str(tmp_path / "photos"), "data.train_images": None, "data.image_size": 16,
        "data.workers": workers, "views.crop": "random-resized", "student.name": "small_convnet",
        "optimization.global_batch": 8, "run.resume": True,
    }  # fmt: skip
    whole = train(tiny({**settings, "run.dir": str(tmp_path / "whole")})).directory
    train_until(tiny(settings), each_step, stop_at=2)
    train_until(tiny(settings), each_step, stop_at=4)
    assert_same_run(train(tiny(settings)).directory, whole, lines_of)


def test_stopped_while_the_teacher_learns_the_same_command_finishes_both(
    tiny: Tiny, each_step: Callable, tmp_path: Path
) -> None:
    settings = {"teacher.source": "train", "run.resume": True}
    stopped = train_until(tiny(settings), each_step, stop_at=3)
    assert stopped.directory == tmp_path / "run"
    assert f"kdaug train {tmp_path}/run/recipe.yaml --run.resume" in str(stopped)
    resumed = train(tiny(settings)).directory
    whole = train(tiny({"teacher.source": "train", "run.dir": str(tmp_path / "other" / "run")})).directory
    assert weights(resumed) == weights(whole)


def test_resumed_after_a_crash_from_an_older_checkpoint_no_step_stands_twice(
    tiny: Tiny, each_step: Callable, uninterrupted: Path, lines_of: Lines, console: Console
) -> None:
    """The newest checkpoint is damaged and the log has lines beyond the one before, the last of them cut short."""
    recipe = tiny({**DROPOUT, "run.checkpoint_minutes": 0.0})
    stopped = train_until(recipe, each_step, stop_at=7).directory
    (stopped / "checkpoints" / "step-00000007" / "state.pt").write_bytes(b"")
    with open(stopped / "metrics.jsonl", "a") as file:
        file.write('{"kind": "step", "step": 8, "epo')
    run = train(recipe, console).directory
    assert "is damaged" in console.file.getvalue()
    assert "continuing at step 6 of 8" in console.file.getvalue()
    assert_same_run(run, uninterrupted, lines_of)


def test_with_all_checkpoints_damaged_a_run_begins_again_only_when_they_are_removed(
    tiny: Tiny, each_step: Callable, uninterrupted: Path, lines_of: Lines
) -> None:
    stopped = train_until(tiny(DROPOUT), each_step, stop_at=6).directory
    for file in (stopped / "checkpoints").glob("*/weights.safetensors"):
        file.unlink()
    with pytest.raises(InputError, match=f"no checkpoint in {stopped / 'checkpoints'} is sound"):
        train(tiny(DROPOUT))
    for path in (stopped / "checkpoints").iterdir():
        shutil.rmtree(path)
    assert_same_run(train(tiny(DROPOUT)).directory, uninterrupted, lines_of)


def test_a_run_that_lost_its_checkpoints_or_its_metrics_does_not_begin_again_unasked(
    tiny: Tiny, each_step: Callable, tmp_path: Path
) -> None:
    longer = {**DROPOUT, "optimization.epochs": 3}
    stopped = train_until(tiny(longer), each_step, stop_at=10).directory
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    (stopped / "metrics.jsonl").write_text("")
    with pytest.raises(InputError, match=r"metrics.jsonl ends before the checkpoint at step 10"):
        train(tiny(longer))
    (stopped / "metrics.jsonl").write_bytes(before[stopped / "metrics.jsonl"])
    shutil.rmtree(stopped / "checkpoints")
    with pytest.raises(InputError, match="has lost its checkpoints"):
        train(tiny(longer))
    for name in ("metrics.jsonl", "best.safetensors"):
        assert (stopped / name).read_bytes() == before[stopped / name]


def test_a_run_that_lost_its_checkpoints_before_it_was_ever_measured_does_not_begin_again(
    tiny: Tiny, each_step: Callable, lines_of: Lines
) -> None:
    recipe = tiny({**DROPOUT, "run.evaluate_every": 2})
    stopped = train_until(recipe, each_step, stop_at=5).directory
    before = (stopped / "metrics.jsonl").read_bytes()
    shutil.rmtree(stopped / "checkpoints")
    with pytest.raises(InputError, match="has lost its checkpoints/; bring it back"):
        train(recipe)
    assert (stopped / "metrics.jsonl").read_bytes() == before


def test_stopped_amid_an_evaluation_a_run_leaves_it_and_makes_it_anew(
    tiny: Tiny, each_step: Callable, uninterrupted: Path, lines_of: Lines
) -> None:
    """The checkpoint was written before; an evaluation can take longer than a service manager waits."""
    seen = []

    def stop_in_evaluation(module: nn.Module, inputs: Any) -> None:
        if not module.training and type(module).__name__ == "SoftmaxRegression":
            seen.append(1)
            if len(seen) == 2:
                signal.raise_signal(signal.SIGTERM)

    handle = register_module_forward_pre_hook(stop_in_evaluation)
    try:
        with pytest.raises(Interrupted) as stopped:
            train(tiny(DROPOUT))
    finally:
        handle.remove()
    assert len(seen) == 2, "of the 8 batches of 256 among 2,000 images"
    (checkpoint,) = (stopped.value.directory / "checkpoints").iterdir()
    assert checkpoint.name == "step-00000004"
    assert_same_run(train(tiny(DROPOUT)).directory, uninterrupted, lines_of)


def test_a_loss_that_is_not_finite_in_an_evaluation_leaves_the_checkpoint_before_it(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([Scores(2000, 50.0, 10.0, 1.0), Scores(2000, 90.0, 50.0, math.nan)])
    monkeypatch.setattr(loop, "evaluate_on_validation", lambda *_: next(scores))
    recipe = tiny({**DROPOUT, "optimization.epochs": 3})
    with pytest.raises(InputError, match=r"loss on the validation images is nan after step 8; .* before it is kept"):
        train(recipe)
    assert [path.name for path in (Path(recipe.run.dir) / "checkpoints").iterdir()] == ["step-00000004"]


def test_a_size_that_the_network_cannot_be_evaluated_at_is_refused_before_it_learns(tiny: Tiny) -> None:
    recipe = tiny({"student.name": "softmax_regression", "run.evaluate_size": 40})
    with pytest.raises(InputError, match="network softmax_regression cannot take 1 image"):
        train(recipe)
    assert not Path(recipe.run.dir).exists()


@pytest.mark.parametrize("name", ["wide_resnet10_1", "efficientnet_b0"])
def test_activations_computed_again_count_once_in_the_statistics(tiny: Tiny, tmp_path: Path, name: str) -> None:
    weights = []
    for recompute in (False, True):
        settings = {
            "student.name": name, "run.grad_checkpointing": recompute, "run.dir": str(tmp_path / f"{recompute}"),
            "data.train_images": 16, "optimization.global_batch": 8, "optimization.epochs": 1,
        }  # fmt: skip
        recipe = tiny(settings)
        context = preparation.prepare(resolve(recipe), Console(quiet=True))
        state = loop.first_state(context)
        for view_batch in training_batches(context, 0):
            train_step(context, state, None, view_batch)
        weights.append(state.network.state_dict())
    assert all(value == 2 for key, value in weights[1].items() if key.endswith("num_batches_tracked"))
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, msg=key)


def test_a_recipe_edited_amid_a_run_is_noticed(tiny: Tiny, each_step: Callable) -> None:
    stopped = train_until(tiny(DROPOUT), each_step, stop_at=3).directory
    text = (stopped / "recipe.yaml").read_text()
    (stopped / "recipe.yaml").write_text(text.replace("learning_rate: 0.05", "learning_rate: 0.01"))
    recipe = read_recipe(stopped / "recipe.yaml")
    with pytest.raises(InputError, match=r"recipe.yaml has been changed since the run began"):
        train(replace(recipe, run=replace(recipe.run, resume=True)))


def test_the_handlers_of_signals_are_given_back(tiny: Tiny, each_step: Callable) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    train_until(tiny(), each_step, stop_at=1)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


# Losses that are not finite


def test_a_run_that_meets_nan_keeps_sound_checkpoints_and_can_go_on_from_them(
    tiny: Tiny, each_step: Callable, uninterrupted: Path, lines_of: Lines
) -> None:
    recipe = tiny({**DROPOUT, "run.checkpoint_minutes": 0.0})
    at_step = [0]

    def spoil(module: nn.Module, inputs: Any, logits: Tensor) -> Tensor | None:
        return logits * math.nan if at_step[0] == 6 and module.training and logits.shape[-1:] == (10,) else None

    handle = register_module_forward_hook(spoil)
    with each_step(lambda step, student, x: at_step.__setitem__(0, step)), pytest.raises(InputError) as refused:
        train(recipe)
    handle.remove()
    assert "the loss is nan at step 6 (epoch 1)" in str(refused.value)
    run = Path(recipe.run.dir)
    assert [line["step"] for line in lines_of(run) if line["kind"] == "step"] == [1, 2, 3, 4, 5]
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step-00000004", "step-00000005"]
    assert not (run / "last.safetensors").exists()
    assert_same_run(train(recipe).directory, uninterrupted, lines_of)


def test_a_network_ruined_by_its_last_step_is_not_a_finished_run(tiny: Tiny, tmp_path: Path) -> None:
    """The loss was finite, the step made from it was not: what is left is no network."""
    ruin = {"optimization.learning_rate": 1e30, "optimization.epochs": 1, "optimization.global_batch": 256}
    with pytest.raises(InputError, match=r"not finite|is nan|is inf"):
        train(tiny({**ruin, "student.name": "wide_resnet10_1"}))
    assert not (tmp_path / "run" / "last.safetensors").exists()
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_without_a_checkpoint_nobody_is_told_that_one_is_kept(tiny: Tiny) -> None:
    ruin = {"optimization.learning_rate": 1e30, "optimization.epochs": 1, "student.name": "wide_resnet10_1"}
    with pytest.raises(InputError, match="training stopped, no checkpoint was kept"):
        train(tiny(ruin))


# What cannot be done


@pytest.mark.parametrize("guessed", [False, True])
def test_a_teacher_little_better_than_guessing_is_pointed_out(
    tiny: Tiny, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch, guessed: bool
) -> None:
    """Ten classes: guessing errs in 90 of 100; the line is drawn at 81."""
    errors = iter([81.5 if guessed else 80.5])
    teacher = train(tiny({"run.dir": str(tmp_path / "teacher"), "optimization.epochs": 1})).directory
    real = preparation.evaluate

    def evaluate(*arguments: Any) -> Scores:
        scores = real(*arguments)
        return replace(scores, top1_error=next(errors, scores.top1_error))

    monkeypatch.setattr(preparation, "evaluate", evaluate)
    train(tiny({"teacher.source": f"run:{teacher}", "optimization.epochs": 1}), console)
    assert ("little better than guess" in console.file.getvalue()) == guessed


def test_a_teacher_whose_answers_are_no_numbers_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    teacher = train(tiny({"run.dir": str(tmp_path / "teacher"), "optimization.epochs": 1})).directory
    file = teacher / "last.safetensors"
    with safetensors.safe_open(file, "pt") as opened:
        metadata = opened.metadata()
        tensors = {name: opened.get_tensor(name) * math.nan for name in opened.keys()}  # noqa: SIM118
    safetensors.torch.save_file(tensors, file, metadata)
    with pytest.raises(InputError, match="answers with numbers that are not finite"):
        train(tiny({"teacher.source": f"run:{teacher}"}))
    assert not (tmp_path / "run").exists()


def test_fewer_images_than_a_batch_are_refused_and_nothing_is_written(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"optimization.global_batch is 257, but there are 256 training images"):
        train(tiny({"optimization.global_batch": 257}))
    assert list(tmp_path.iterdir()) == []


def test_a_batch_of_all_images_is_one_step_an_epoch(tiny: Tiny, lines_of: Lines) -> None:
    run = train(tiny({"optimization.global_batch": 256})).directory
    assert [(s["step"], s["epoch"]) for s in lines_of(run) if s["kind"] == "step"] == [(1, 0), (2, 1)]


def test_what_is_printed_is_printed_whatever_characters_a_path_has(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "[bold]a[" / "b] :cat:"
    assert train(tiny({"run.dir": str(run), "optimization.epochs": 1})).directory == run
    assert f"{run}: softmax_regression" in capsys.readouterr().out
