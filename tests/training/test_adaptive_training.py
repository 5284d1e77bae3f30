"""Training with every kind of supervision: the teacher and its stored labels give the same training."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from rich.console import Console
from support.recipes import with_settings
from support.runs import read_lines, weight_bytes
from support.steps import train_until

from kdaug import InputError
from kdaug.config import Recipe
from kdaug.supervision import LabelStore
from kdaug.supervision.manifest import read_manifest
from kdaug.training import teacher as teacher_module
from kdaug.training import train
from kdaug.training.context import build_context
from kdaug.training.evaluation import unaugmented_label_log_probs
from kdaug.training.labeling import LabelRequest, label_views
from kdaug.training.resolve import resolve
from kdaug.training.teacher import load_checked_teacher

KINDS: dict[str, dict[str, Any]] = {
    "nucleus": {"mass": 0.9, "k": 10, "reading": "grouped"},
    "label trust": {"label_trust": True, "k": 10},
    "rising": {"weight_schedule": "rising", "reading": "renormalized"},  # this divergence is never negative
    "falling": {"weight_schedule": "falling", "reading": "renormalized"},
    "by magnitude": {"weight_by_magnitude": True, "weight": 2.0, "reading": "renormalized"},
    "drop worst": {"drop_worst": 0.25},
    "min confidence": {"min_confidence": 0.5, "label_weight": 0.0, "label_smoothing": 0.1},
    "plain": {"k": 10},
    "soft labels alone": {"label_weight": 0.0, "k": 10},
    "hard": {"divergence": "hard"},
    "decoupled": {"divergence": "decoupled", "temperature": 4.0},
    "dist": {"divergence": "dist"},
    "standardized": {"standardize_logits": True, "k": 10},
}


@pytest.fixture(scope="module")
def recipe(teacher_run: Path, recipe_with_teacher: Recipe) -> Recipe:
    """`recipe_with_teacher` with its trained teacher."""
    return with_settings(recipe_with_teacher, {"teacher.source": f"run:{teacher_run}", "teacher.epochs": None})


@pytest.fixture(scope="module")
def store(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All classes for the views of `recipe`, in float32."""
    folder = tmp_path_factory.mktemp("labels") / "store"
    label_views(recipe, folder, LabelRequest(k=10, precision="float32"))
    return folder


def with_labels(recipe: Recipe, labels: Path, run: Path) -> Recipe:
    settings = {"teacher.source": "none", "teacher.labels": str(labels), "run.dir": str(run)}
    return with_settings(recipe, settings)


@pytest.mark.parametrize("kind", KINDS)
def test_stored_labels_train_as_the_teacher_does(kind: str, recipe: Recipe, store: Path, tmp_path: Path) -> None:
    settings = {f"supervision.{name}": value for name, value in KINDS[kind].items()}
    recipe = with_settings(recipe, settings)
    online = train(with_settings(recipe, {"run.dir": str(tmp_path / "online")})).directory
    stored = train(with_labels(recipe, store, tmp_path / "stored")).directory
    lines = read_lines(online, "step")
    for one, other in zip(lines, read_lines(stored, "step"), strict=True):
        assert one.keys() == other.keys()
        for name in ("loss", "cross_entropy", "divergence", "teacher_agreement", "label_trust"):
            if name in one:
                assert other[name] == pytest.approx(one[name], rel=2e-6, abs=1e-6), (name, one["step"])
    first, last = lines[0], lines[-1]
    whole = first["cross_entropy"] + first["divergence"]
    if kind in ("plain", "nucleus", "hard"):
        assert first["loss"] == pytest.approx(whole, rel=1e-5)
    if kind == "soft labels alone":
        assert first["loss"] == pytest.approx(first["divergence"], rel=1e-5)
    if kind == "rising":
        assert first["loss"] == pytest.approx(first["cross_entropy"], rel=1e-6)
        assert last["loss"] > last["cross_entropy"] + 0.5 * last["divergence"]
    if kind == "falling":
        assert first["loss"] == pytest.approx(whole, rel=1e-5)
        assert last["cross_entropy"] < last["loss"] < last["cross_entropy"] + 0.5 * last["divergence"]
    if kind == "by magnitude":  # each of two ops in the paper's space has at most M / 10, and less on average
        assert first["cross_entropy"] < first["loss"] < first["cross_entropy"] + 2 * first["divergence"]
    if kind == "drop worst":
        assert first["loss"] < whole, "the views with the largest loss are dropped"
    if kind == "label trust":
        assert 0 < first["label_trust"] < 100


def test_stored_log_probs_of_unaugmented_images(recipe: Recipe, store: Path) -> None:
    context = build_context(resolve(recipe), Console(quiet=True))
    teacher, images = load_checked_teacher(context, recipe.teacher.source), context.dataset.train
    all_classes = teacher(torch.from_numpy(images.images)).log_softmax(1)
    expected = all_classes[torch.arange(len(images)), torch.from_numpy(images.labels)]
    log_probs = unaugmented_label_log_probs(context, teacher)
    torch.testing.assert_close(log_probs, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(LabelStore(store, read_manifest(store)).unaugmented_label_log_probs, log_probs)


def test_without_label_trust_no_unaugmented_image_is_predicted(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_module, "unaugmented_label_log_probs", lambda *_: pytest.fail("must not be computed"))
    train(with_settings(recipe, {"optimization.epochs": 1, "run.dir": str(tmp_path / "run")}))


@pytest.mark.parametrize("damage", ["missing", "truncated", "of other images"])
def test_a_damaged_clean_file_is_named(damage: str, recipe: Recipe, store: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(store, tmp_path / "store")
    clean = folder / "clean.safetensors"
    if damage == "missing":
        clean.unlink()
    elif damage == "truncated":
        clean.write_bytes(clean.read_bytes()[:-5])
    else:
        clean.write_bytes(safetensors.torch.save({"label": torch.zeros(7)}))
    stored = with_labels(recipe, folder, tmp_path / "run")
    with pytest.raises(InputError, match=r"clean\.safetensors (is missing or damaged|is of 7 images, not 256)"):
        train(with_settings(stored, {"supervision.label_trust": True}))
    assert not (tmp_path / "run").exists()
    train(with_labels(with_settings(recipe, {"optimization.epochs": 1}), folder, tmp_path / "other"))


def test_decoupled_needs_all_classes(recipe: Recipe, tmp_path: Path) -> None:
    label_views(recipe, tmp_path / "store", LabelRequest(k=5, epochs=(0, 1)))
    stored = with_labels(with_settings(recipe, {"optimization.epochs": 1}), tmp_path / "store", tmp_path / "run")
    with pytest.raises(InputError, match=r"holds the top 5 classes, but supervision.divergence decoupled needs all 10"):
        train(with_settings(stored, {"supervision.divergence": "decoupled"}))
    assert train(with_settings(stored, {"supervision.divergence": "hard"})).directory.exists()


def test_label_trust_resumes_bit_for_bit(recipe: Recipe, tmp_path: Path) -> None:
    settings = {"supervision.label_trust": True, "supervision.drop_worst": 0.1, "run.resume": True}
    recipe = with_settings(recipe, settings)
    uninterrupted = train(with_settings(recipe, {"run.dir": str(tmp_path / "uninterrupted")})).directory
    stopped = with_settings(recipe, {"run.dir": str(tmp_path / "stopped")})
    train_until(stopped, step=5)
    assert weight_bytes(train(stopped).directory) == weight_bytes(uninterrupted)
