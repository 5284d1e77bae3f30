"""Training under every kind of supervision: with the teacher or its stored labels it is the same training."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from rich.console import Console

from kdaug.config import Recipe
from kdaug.errors import InputError
from kdaug.supervision import LabelStore
from kdaug.supervision.manifest import read_manifest
from kdaug.training import Interrupted, clean_log_probs, train
from kdaug.training.clean_log_probs import clean_label_log_probs
from kdaug.training.context import build_context
from kdaug.training.teacher import load_checked_teacher
from kdaug.training.labelling import LabelRequest, label_views
from kdaug.training.resolve import resolve

Changed = Callable[[Recipe, dict[str, Any]], Recipe]
Lines = Callable[[Path], list[dict[str, Any]]]

KINDS: dict[str, dict[str, Any]] = {
    "nucleus": {"mass": 0.9, "k": 10, "reading": "grouped"},
    "label trust": {"label_trust": True, "k": 10},
    "rising": {"weight_schedule": "rising", "reading": "renormalized"},  # whose divergence is never negative
    "falling": {"weight_schedule": "falling", "reading": "renormalized"},
    "by magnitude": {"weight_by_magnitude": True, "weight": 2.0, "reading": "renormalized"},
    "without the worst": {"drop_worst": 0.25},
    "plain": {"k": 10},
    "soft labels alone": {"label_weight": 0.0, "k": 10},
    "hard": {"divergence": "hard"},
    "decoupled": {"divergence": "decoupled", "temperature": 4.0},
}


@pytest.fixture(scope="module")
def taught_by(taught: Path, taught_recipe: Recipe) -> Recipe:
    """`taught_recipe` with its teacher, which is trained already."""
    teacher = next((Path(taught_recipe.run.dir or "").parent / "teachers").iterdir())
    return replace(taught_recipe, teacher=replace(taught_recipe.teacher, source=f"run:{teacher}", epochs=None))


@pytest.fixture(scope="module")
def store(taught_by: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels") / "store"
    label_views(taught_by, folder, LabelRequest(k=10, precision="float32"))
    return folder


def steps_of(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["kind"] == "step"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_from_stored_labels_what_it_learns_from_the_teacher(
    kind: str, taught_by: Recipe, store: Path, changed: Changed, lines_of: Lines, tmp_path: Path
) -> None:
    settings = {f"supervision.{name}": value for name, value in KINDS[kind].items()}
    asked = train(changed(taught_by, {**settings, "run.dir": str(tmp_path / "asked")})).directory
    stored = {"teacher.source": "none", "teacher.labels": str(store), "run.dir": str(tmp_path / "read")}
    read = train(changed(taught_by, {**settings, **stored})).directory
    pairs = list(zip(steps_of(lines_of(asked)), steps_of(lines_of(read)), strict=True))
    for one, other in pairs:
        assert one.keys() == other.keys()
        for name in ("loss", "cross_entropy", "divergence", "teacher_agreement", "label_trust"):
            if name in one:
                assert other[name] == pytest.approx(one[name], rel=2e-6, abs=1e-6), (name, one["step"])
    first = pairs[0][0]
    if kind in ("plain", "nucleus", "hard"):
        assert first["loss"] == pytest.approx(first["cross_entropy"] + first["divergence"], rel=1e-5)
    if kind == "soft labels alone":
        assert first["loss"] == pytest.approx(first["divergence"], rel=1e-5)
    if kind == "rising":
        assert first["loss"] == pytest.approx(first["cross_entropy"], rel=1e-6)
        last = pairs[-1][0]
        assert last["loss"] > last["cross_entropy"] + 0.5 * last["divergence"]
    if kind == "falling":
        assert first["loss"] == pytest.approx(first["cross_entropy"] + first["divergence"], rel=1e-5)
        last = pairs[-1][0]
        assert last["cross_entropy"] < last["loss"] < last["cross_entropy"] + 0.5 * last["divergence"]
    if kind == "by magnitude":  # of two ops in the paper's space at most M / 10 each, and less on the average
        assert first["cross_entropy"] < first["loss"] < first["cross_entropy"] + 2 * first["divergence"]
    if kind == "without the worst":
        assert first["loss"] < first["cross_entropy"] + first["divergence"], "the worst views lose most"
    if kind == "label trust":
        assert 0 < first["label_trust"] < 100


def test_the_clean_look_is_at_images_as_they_are(taught_by: Recipe, store: Path) -> None:
    context = build_context(resolve(taught_by), Console(quiet=True))
    teacher, train_images = load_checked_teacher(context, taught_by.teacher.source), context.dataset.train
    logits = teacher(torch.from_numpy(train_images.images)).log_softmax(1)
    expected = logits[torch.arange(len(train_images)), torch.from_numpy(train_images.labels)]
    torch.testing.assert_close(clean_label_log_probs(context, teacher), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(
        LabelStore(store, read_manifest(store)).clean_label_log_probs, clean_label_log_probs(context, teacher)
    )


def test_a_teacher_without_trust_does_not_look_at_clean_images(
    taught_by: Recipe, changed: Changed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clean_log_probs, "clean_label_log_probs", lambda *_: pytest.fail("looked"))
    train(changed(taught_by, {"optimization.epochs": 1, "run.dir": str(tmp_path / "run")}))


@pytest.mark.parametrize("damage", ["missing", "cut", "of other images"])
def test_a_damaged_clean_file_is_named(
    damage: str, taught_by: Recipe, store: Path, changed: Changed, tmp_path: Path
) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    for path in store.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    clean = folder / "clean.safetensors"
    if damage == "missing":
        clean.unlink()
    elif damage == "cut":
        clean.write_bytes(clean.read_bytes()[:-5])
    else:
        clean.write_bytes(safetensors.torch.save({"label": torch.zeros(7)}))
    stored = {"teacher.source": "none", "teacher.labels": str(folder), "run.dir": str(tmp_path / "run")}
    with pytest.raises(InputError, match=r"clean\.safetensors (is missing or damaged|is of 7 images, not 256)"):
        train(changed(taught_by, {**stored, "supervision.label_trust": True}))
    assert not (tmp_path / "run").exists()
    train(changed(taught_by, {**stored, "optimization.epochs": 1}))


def test_decoupled_wants_all_classes_stored(taught_by: Recipe, changed: Changed, tmp_path: Path) -> None:
    label_views(taught_by, tmp_path / "store", LabelRequest(k=5, epochs=(0, 1)))
    stored = {
        "teacher.source": "none", "teacher.labels": str(tmp_path / "store"), "run.dir": str(tmp_path / "run"),
        "optimization.epochs": 1,
    }  # fmt: skip
    with pytest.raises(InputError, match=r"holds the top 5 classes, but supervision.divergence decoupled needs all 10"):
        train(changed(taught_by, {**stored, "supervision.divergence": "decoupled"}))
    assert train(changed(taught_by, {**stored, "supervision.divergence": "hard"})).directory.exists()


def test_trust_survives_a_stop(
    taught_by: Recipe, changed: Changed, each_step: Callable[..., Any], tmp_path: Path
) -> None:
    settings = {"supervision.label_trust": True, "supervision.drop_worst": 0.1}
    whole = train(changed(taught_by, {**settings, "run.dir": str(tmp_path / "whole")})).directory
    recipe = changed(taught_by, {**settings, "run.dir": str(tmp_path / "stopped"), "run.resume": True})

    def stop(step: int, *_: object) -> None:
        if step == 5:
            signal.raise_signal(signal.SIGINT)

    with each_step(stop), pytest.raises(Interrupted):
        train(recipe)
    train(recipe)
    weights, resumed = ((run / "last.safetensors").read_bytes() for run in (whole, tmp_path / "stopped"))
    assert weights == resumed
