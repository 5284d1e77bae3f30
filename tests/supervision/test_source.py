"""Soft labels from a teacher and from a store of its predictions are the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from kdaug.config import Supervision
from kdaug.errors import InputError
from kdaug.networks import InputFormat, create_network
from kdaug.supervision import LabelStore, SoftLabels, SoftLabelSource, StoredSoftLabels, Teacher, TeacherSoftLabels
from kdaug.supervision.manifest import DatasetFingerprint, Manifest
from kdaug.supervision.records import epoch_files, make_records, write_records, write_unaugmented_label_log_probs

SAMPLES, CLASSES = 6, 4
VIEWS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (SAMPLES, 8, 8, 3), np.uint8))
LABELS = torch.arange(SAMPLES) % CLASSES
UNAUGMENTED = torch.linspace(-3, -0.1, SAMPLES)
INDICES = np.array([5, 0, 3])
MANIFEST = Manifest(
    DatasetFingerprint(SAMPLES, tuple("abcd"), "data", {}), "teacher", CLASSES, (2.0,), "float32", cycle=2
)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    torch.manual_seed(0)
    network = create_network("wide_resnet10_1", CLASSES, 3)
    return Teacher(network, InputFormat((0.5,) * 3, (0.25,) * 3, None))


@pytest.fixture
def store(teacher: Teacher, tmp_path: Path) -> LabelStore:
    """The teacher's predictions for VIEWS in epoch 1."""
    (part,) = epoch_files(MANIFEST, [1])
    write_records(make_records(teacher(VIEWS), LABELS, MANIFEST), part, MANIFEST, tmp_path)
    write_unaugmented_label_log_probs(UNAUGMENTED, MANIFEST, tmp_path)
    return LabelStore(tmp_path, MANIFEST)


def soft_labels_of(source: SoftLabelSource) -> SoftLabels:
    source.prepare()
    return source.soft_labels(VIEWS[INDICES], LABELS[INDICES], 1, INDICES)


@pytest.mark.parametrize(
    "settings",
    [
        Supervision(k=CLASSES, temperature=2.0),
        Supervision(k=2, temperature=2.0),
        Supervision(k=2, label_trust=True),
        Supervision(k=CLASSES, label_trust=True),
        Supervision(divergence="hard"),
        Supervision(divergence="decoupled", temperature=4.0),
        Supervision(divergence="dist"),
        Supervision(k=CLASSES, standardize_logits=True),
    ],
)
def test_teacher_and_store_give_equal_soft_labels(settings: Supervision, teacher: Teacher, store: LabelStore) -> None:
    computed = soft_labels_of(TeacherSoftLabels(teacher, settings, lambda _: UNAUGMENTED))
    stored = soft_labels_of(StoredSoftLabels(store, settings))
    for field in fields(SoftLabels):
        expected, actual = getattr(computed, field.name), getattr(stored, field.name)
        if field.name.startswith("logsumexp") and settings.divergence == "hard":
            continue  # not used
        if field.name == "logsumexp_others":  # the store computes it from logsumexp_all
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
        else:
            assert (actual is None and expected is None) or torch.equal(actual, expected), field.name
    expected_unaugmented = UNAUGMENTED[INDICES] if settings.label_trust else None
    assert (computed.unaugmented_label_log_prob is None) == (expected_unaugmented is None)
    assert expected_unaugmented is None or torch.equal(computed.unaugmented_label_log_prob, expected_unaugmented)


@pytest.mark.parametrize("label_trust", [False, True])
def test_prepare_computes_clean_log_probs_only_for_label_trust(label_trust: bool, teacher: Teacher) -> None:
    calls = 0

    def unaugmented_label_log_probs(before_batch: Callable[[], None]) -> Tensor:
        nonlocal calls
        calls += 1
        return UNAUGMENTED

    source = TeacherSoftLabels(teacher, Supervision(label_trust=label_trust), unaugmented_label_log_probs)
    assert calls == 0
    soft_labels_of(source)
    source.soft_labels(VIEWS, LABELS, 0, np.arange(SAMPLES))
    assert calls == int(label_trust)


def test_view_cycle(teacher: Teacher, store: LabelStore) -> None:
    assert TeacherSoftLabels(teacher, Supervision(), lambda _: UNAUGMENTED).view_cycle is None
    assert StoredSoftLabels(store, Supervision()).view_cycle == 2


def test_prepare_names_damaged_clean_log_probs(store: LabelStore) -> None:
    path = store.folder / "clean.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    StoredSoftLabels(store, Supervision()).prepare()
    with pytest.raises(InputError, match=r"clean\.safetensors is missing or damaged"):
        StoredSoftLabels(store, Supervision(label_trust=True)).prepare()
