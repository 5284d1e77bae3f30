"""The label store returns the teacher's predictions for any K, temperature and reading it was made for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save
from torch import Tensor

from kdaug.config import Reading, Supervision
from kdaug.errors import InputError
from kdaug.supervision import (
    LabelStore,
    LossOutput,
    distillation_loss,
    open_label_store,
    records,
    soft_labels_from_logits,
)
from kdaug.supervision.manifest import DatasetFingerprint, Manifest, manifest_differences, read_manifest, write_manifest
from kdaug.supervision.records import complete_epochs, empty_records, epoch_files, make_records, write_records

SAMPLES, CLASSES = 23, 12
DATASET = DatasetFingerprint(
    SAMPLES, tuple(f"c{i}" for i in range(CLASSES)), "data", {"views.seed": 0, "views.policy": "none"}
)
MANIFEST = Manifest(DATASET, "teacher", 5, (2.0, 10.0), "float32")
READINGS: list[Reading] = ["as-written", "renormalized", "grouped"]


def logits_of(epoch: int, samples: int = SAMPLES, classes: int = CLASSES) -> Tensor:
    """A teacher's logits in `epoch`, float32 [N,C]."""
    return torch.tensor(np.random.default_rng(epoch).normal(0, 4, (samples, classes)), dtype=torch.float32)


def labels_of(samples: int = SAMPLES) -> Tensor:
    return torch.arange(samples) % CLASSES


def fill(manifest: Manifest, folder: Path) -> Path:
    """Writes a store of two epochs."""
    write_manifest(manifest, folder)
    for part in epoch_files(manifest, range(2)):
        logits, labels = logits_of(part.epoch)[part.first : part.end], labels_of()[part.first : part.end]
        write_records(make_records(logits, labels, manifest), part, manifest, folder)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return fill(MANIFEST, tmp_path / "labels")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Read-only stores by number of stored classes."""
    return {k: fill(replace(MANIFEST, k=k), tmp_path_factory.mktemp("labels")) for k in (5, 12)}


def losses_of(store: LabelStore, supervision: Supervision, epoch: int) -> tuple[LossOutput, LossOutput]:
    """The loss with soft labels from the store, and with those from the teacher."""
    rows = np.array([22, 0, 7, 7])
    labels = labels_of()[rows]
    student = torch.tensor(np.random.default_rng(9).normal(0, 3, (4, CLASSES)), dtype=torch.float32)
    stored = store.soft_labels(supervision, epoch, rows)
    computed = soft_labels_from_logits(logits_of(epoch)[rows], supervision, labels)
    return (
        distillation_loss(supervision, student, stored, labels),
        distillation_loss(supervision, student, computed, labels),
    )


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize(("k", "stored_k"), [(1, 5), (3, 5), (5, 5), (12, 12), (99, 12)])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
def test_loss_equals_the_teachers(
    reading: Reading, k: int, stored_k: int, temperature: float, stores: dict[int, Path]
) -> None:
    supervision = Supervision(1.5, k, temperature, reading)
    store = open_label_store(stores[stored_k], DATASET, supervision, range(2))
    for epoch in (1, 0):
        loss, expected = losses_of(store, supervision, epoch)
        torch.testing.assert_close(loss.loss, expected.loss, rtol=1e-6, atol=1e-6)
        assert loss.agreement is not None
        assert expected.agreement is not None
        assert torch.equal(loss.agreement, expected.agreement)
        if reading != "grouped" or k >= CLASSES:
            assert torch.equal(loss.loss, expected.loss)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("k", [3, 12])
def test_store_of_all_classes_serves_any_temperature(reading: Reading, k: int, stores: dict[int, Path]) -> None:
    supervision = Supervision(1.5, k, 3.3, reading)
    loss, expected = losses_of(open_label_store(stores[12], DATASET, supervision, range(2)), supervision, 0)
    torch.testing.assert_close(loss.loss, expected.loss, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize(("k", "stored_k"), [(1, 5), (5, 5), (12, 12)])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("standardized", [True, False])
def test_standardized_loss_equals_the_teachers(
    reading: Reading, k: int, stored_k: int, temperature: float, standardized: bool, tmp_path: Path
) -> None:
    """A store of all classes serves standardized logits in any case."""
    supervision = Supervision(1.5, k, temperature, reading, standardize_logits=True)
    manifest = replace(MANIFEST, k=stored_k, temperatures=(1.0, 2.0), standardized=standardized)
    folder = fill(manifest, tmp_path / "labels")
    if not standardized and stored_k < CLASSES:
        with pytest.raises(InputError, match=r"not standardized, but supervision\.standardize_logits is set"):
            open_label_store(folder, DATASET, supervision, range(2))
        return
    loss, expected = losses_of(open_label_store(folder, DATASET, supervision, range(2)), supervision, 1)
    torch.testing.assert_close(loss.loss, expected.loss, rtol=1e-6, atol=1e-6)
    if reading != "grouped" or k >= CLASSES:
        assert torch.equal(loss.loss, expected.loss)


def test_standardized_store_serves_other_settings(tmp_path: Path) -> None:
    folder = fill(replace(MANIFEST, standardized=True), tmp_path / "labels")
    for supervision in (Supervision(k=5, temperature=1.0), Supervision(k=5, reading="renormalized")):
        loss, expected = losses_of(open_label_store(folder, DATASET, supervision, range(2)), supervision, 0)
        torch.testing.assert_close(loss.loss, expected.loss, rtol=1e-6, atol=1e-6)
    with pytest.raises(InputError, match=r"supports temperatures 1, but supervision\.temperature is 2"):
        open_label_store(folder, DATASET, Supervision(k=5), range(2))
    with pytest.raises(InputError, match=r"supports temperatures 2, 10, but supervision\.temperature is 1"):
        open_label_store(folder, DATASET, Supervision(k=5, temperature=1.0, standardize_logits=True), range(2))


def test_renormalized_store_serves_any_temperature(stores: dict[int, Path]) -> None:
    supervision = Supervision(1.5, 3, 3.3, "renormalized")
    loss, expected = losses_of(open_label_store(stores[5], DATASET, supervision, range(2)), supervision, 0)
    assert torch.equal(loss.loss, expected.loss)


def test_hard_labels_at_any_temperature(stores: dict[int, Path]) -> None:
    supervision = Supervision(divergence="hard", temperature=3.3)
    loss, expected = losses_of(open_label_store(stores[5], DATASET, supervision, range(2)), supervision, 1)
    assert torch.equal(loss.loss, expected.loss)


@pytest.fixture(scope="module")
def store_of_several_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "ROWS_PER_FILE", 10)
        return fill(MANIFEST, tmp_path_factory.mktemp("labels"))


@settings(max_examples=50)
@given(rows=st.lists(st.integers(0, SAMPLES - 1), min_size=1, max_size=40), epoch=st.integers(0, 1))
def test_rows_from_several_files_keep_their_order(rows: list[int], epoch: int, store_of_several_files: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "ROWS_PER_FILE", 10)
        actual = LabelStore(store_of_several_files, MANIFEST).records(epoch, np.array(rows))
    expected = make_records(logits_of(epoch), labels_of(), MANIFEST)
    for name, value in expected.items():
        assert torch.equal(actual[name].to(value.dtype), value[rows]), name


def test_float16_log_probs_have_a_relative_error_of_a_thousandth(tmp_path: Path) -> None:
    half = replace(MANIFEST, precision="float16")
    stored = LabelStore(fill(half, tmp_path / "labels"), half).records(0, np.arange(SAMPLES))
    exact = logits_of(0).double().log_softmax(1)
    top = exact.topk(5, dim=1)
    assert torch.equal(stored["classes"], top.indices)
    torch.testing.assert_close(stored["logits"].double(), top.values, rtol=2**-11, atol=2**-24)
    label_log_prob = exact.gather(1, labels_of()[:, None])[:, 0]
    torch.testing.assert_close(stored["label"].double(), label_log_prob, rtol=2**-11, atol=2**-24)
    for column, temperature in enumerate((2.0, 10.0)):
        expected = (exact / temperature).exp().sum(1).log()
        torch.testing.assert_close(stored["log_sum_exp"][:, column].double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("k", [1, 5, 50])
@pytest.mark.parametrize("temperatures", [(), (2.0,), (2.0, 10.0)])
@pytest.mark.parametrize("standardized", [False, True])
def test_bytes_per_view(k: int, temperatures: tuple[float, ...], standardized: bool, tmp_path: Path) -> None:
    dataset = replace(DATASET, samples=5000, classes=tuple(str(i) for i in range(100)))
    manifest = Manifest(dataset, "teacher", k, temperatures, "float16", standardized=standardized)
    assert manifest.bytes_per_view == 4 * k + 2 + 4 * (len(temperatures) + standardized)
    (part,) = epoch_files(manifest, [0])
    labels = torch.zeros(5000, dtype=torch.int64)
    write_records(make_records(logits_of(0, 5000, 100), labels, manifest), part, manifest, tmp_path)
    size = part.path(tmp_path).stat().st_size
    assert 5000 * manifest.bytes_per_view <= size < 5000 * manifest.bytes_per_view + 600


def test_classes_above_32767(tmp_path: Path) -> None:
    dataset = replace(DATASET, samples=2, classes=tuple(str(i) for i in range(60_000)))
    manifest = Manifest(dataset, "teacher", 2, (), "float16")
    logits = torch.zeros(2, 60_000)
    logits[0, 59_999], logits[0, 40_000], logits[1, 3], logits[1, 32_768] = 9, 8, 9, 8
    (part,) = epoch_files(manifest, [0])
    write_records(make_records(logits, torch.tensor([0, 1]), manifest), part, manifest, tmp_path)
    stored = LabelStore(tmp_path, manifest).records(0, np.array([0, 1]))
    assert stored["classes"].tolist() == [[59_999, 40_000], [3, 32_768]]


@pytest.mark.parametrize("k", [1, 3, 5, 12])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_ties_are_ranked_as_by_the_teacher(k: int, dtype: torch.dtype, tmp_path: Path) -> None:
    manifest = replace(MANIFEST, k=12 if k == 12 else 7, dataset=replace(DATASET, samples=2000))
    logits = torch.tensor(np.random.default_rng(0).normal(0, 1, (2000, CLASSES))).to(dtype)
    logits[:40] = logits[:40].round()
    assert (logits.float().sort(1).values.diff(dim=1) == 0).any(1).sum() > 40, "too few ties to test"
    labels = torch.zeros(2000, dtype=torch.int64)
    write_manifest(manifest, tmp_path)
    write_records(make_records(logits, labels, manifest), epoch_files(manifest, [0])[0], manifest, tmp_path)
    supervision = Supervision(k=k)
    expected = soft_labels_from_logits(logits, supervision, labels)
    actual = LabelStore(tmp_path, manifest).soft_labels(supervision, 0, np.arange(2000))
    assert torch.equal(actual.top1, expected.top1)
    assert torch.equal(actual.scaled_log_probs, expected.scaled_log_probs)
    if expected.classes is None:
        assert actual.classes is None
    else:
        assert actual.classes is not None
        assert torch.equal(actual.classes, expected.classes)


def test_manifest_round_trip(store: Path) -> None:
    assert read_manifest(store) == MANIFEST
    assert manifest_differences(read_manifest(store), MANIFEST) == []


def test_manifest_file_and_digest_of_version_3(tmp_path: Path) -> None:
    """Stores written by earlier releases must stay readable, so these bytes must not change."""
    manifest = Manifest(DatasetFingerprint(2, ("a", "b"), "d", {"views.seed": 0}), "t", 1, (2.0,), "float16", cycle=3)
    write_manifest(manifest, tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text()) == {
        "subject": {"samples": 2, "classes": ["a", "b"], "data": "d", "views": {"views.seed": 0}},
        "teacher": "t", "k": 1, "temperatures": [2.0], "precision": "float16", "computed": "float32", "cycle": 3,
        "version": 3,
    }  # fmt: skip
    assert manifest.digest == "f658f0bb8fe55d3b"


@pytest.mark.parametrize(
    ("stored", "wanted", "supervision", "epochs", "message"),
    [
        ({}, {"data": "others"}, {}, 2, "created for different views .data: data -> others."),
        ({}, {"views": {**DATASET.views, "views.seed": 1}}, {}, 2, "views.seed: 0 -> 1"),
        ({}, {"views": {**DATASET.views, "views.policy": "x"}}, {}, 2, "views.policy: none -> x"),
        ({}, {"classes": ("a", "b")}, {}, 2, r"classes: 12 \(\w+\) -> 2 \(\w+\)"),
        ({}, {"samples": 24}, {}, 2, "samples: 23 -> 24"),
        ({}, {}, {"k": 6}, 2, "holds the top 5 classes, but supervision.k is 6"),
        ({}, {}, {"temperature": 4.0, "reading": "grouped"}, 2, "supports temperatures 1, 2, 10, but .* is 4"),
        ({}, {}, {"temperature": 4.0, "reading": "as-written"}, 2, "supports temperatures 1, 2, 10, but .* is 4"),
        ({}, {}, {}, 3, r"epoch 2 is needed, but epoch-00002-0.safetensors is missing; .*label.* for epochs 2:3$"),
        ({"cycle": 3}, {}, {}, 9, "epoch 2 is needed, but .*; run the same kdaug label command again$"),
        ({}, {}, {"divergence": "decoupled"}, 2, "top 5 classes, but supervision.divergence decoupled needs all 12"),
    ],
)  # fmt: skip
def test_unsuitable_store_is_refused(
    stored: dict[str, Any],
    wanted: dict[str, Any],
    supervision: dict[str, Any],
    epochs: int,
    message: str,
    tmp_path: Path,
) -> None:
    folder = fill(replace(MANIFEST, **stored), tmp_path / "labels")
    with pytest.raises(InputError, match=message):
        open_label_store(folder, replace(DATASET, **wanted), Supervision(**{"k": 5, **supervision}), range(epochs))


def test_cyclic_store_serves_any_number_of_epochs(tmp_path: Path) -> None:
    folder = fill(replace(MANIFEST, cycle=2), tmp_path / "labels")
    assert open_label_store(folder, DATASET, Supervision(), range(1000)).cycle == 2
    assert open_label_store(folder, DATASET, Supervision(), [7]).cycle == 2


def test_epochs_without_a_teacher_are_not_needed(store: Path) -> None:
    (store / "epoch-00000-0.safetensors").unlink()
    assert open_label_store(store, DATASET, Supervision(), [1]).manifest == MANIFEST
    assert complete_epochs(MANIFEST, store) == [1]


def remove_file(folder: Path) -> None:
    (folder / "epoch-00001-0.safetensors").unlink()


def truncate_file(folder: Path) -> None:
    path = folder / "epoch-00001-0.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def replace_file_by_another_stores(folder: Path) -> None:
    fill(replace(MANIFEST, teacher="another"), folder / "other")
    (folder / "other" / "epoch-00001-0.safetensors").replace(folder / "epoch-00001-0.safetensors")


def remove_columns_of_classes(folder: Path) -> None:
    path = folder / "epoch-00001-0.safetensors"
    columns = {
        name: column[:, :2].contiguous() if column.ndim > 1 else column for name, column in load_file(path).items()
    }
    path.write_bytes(save(columns, {"store": MANIFEST.digest}))


def remove_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def truncate_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:-9])


def set_in_manifest(**values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_file, r"epoch 1 is needed, but epoch-00001-0.safetensors is missing"),
        (truncate_file, r"epoch-00001-0.safetensors is damaged or belongs to another store"),
        (replace_file_by_another_stores, r"epoch-00001-0.safetensors is damaged or belongs to another store"),
        (remove_columns_of_classes, r"epoch-00001-0.safetensors is damaged or belongs to another store"),
        (set_in_manifest(k=9), r"epoch-00000-0.safetensors is damaged or belongs to another store"),
        (set_in_manifest(k="5"), "manifest.json is damaged"),
        (set_in_manifest(k=13), "manifest.json is damaged"),
        (set_in_manifest(precision="float64"), "manifest.json is damaged"),
        (set_in_manifest(unknown=1), "manifest.json is damaged"),
        (truncate_manifest, "manifest.json is damaged; run the same kdaug label command again"),
        (set_in_manifest(version=99), "is of version 99, but this kdaug reads version 3"),
        (remove_manifest, "is not a label store: it has no manifest.json"),
    ],
)
def test_damage_is_named(damage: Callable[[Path], None], message: str, store: Path) -> None:
    damage(store)
    with pytest.raises(InputError, match=message):
        open_label_store(store, DATASET, Supervision(), range(2))


def test_invalid_class_is_named_when_read(store: Path) -> None:
    path = store / "epoch-00001-0.safetensors"
    columns = load_file(path)
    columns["classes"] = torch.full((SAMPLES, 5), 600, dtype=torch.int32).to(torch.uint16)
    path.write_bytes(save(columns, {"store": MANIFEST.digest}))
    opened = open_label_store(store, DATASET, Supervision(), range(2))
    with pytest.raises(InputError, match=r"epoch-00001-0.safetensors is damaged; delete it"):
        opened.soft_labels(Supervision(), 1, np.array([0]))


def test_file_removed_after_opening_is_named_when_read(store: Path) -> None:
    opened = open_label_store(store, DATASET, Supervision(), range(2))
    remove_file(store)
    with pytest.raises(InputError, match=r"epoch-00001-0.safetensors is missing, damaged or belongs to another store"):
        opened.soft_labels(Supervision(), 1, np.array([0]))


def test_image_unreadable_when_labeled_is_named(tmp_path: Path) -> None:
    columns = empty_records(SAMPLES, MANIFEST)
    for name, value in make_records(logits_of(0), labels_of(), MANIFEST).items():
        columns[name][:20] = value[:20]
    for part in epoch_files(MANIFEST, range(2)):
        write_records(columns, part, MANIFEST, tmp_path)
    opened = LabelStore(tmp_path, MANIFEST)
    assert opened.soft_labels(Supervision(), 0, np.array([0, 19])).scaled_log_probs.isfinite().all()
    with pytest.raises(InputError, match="image 21 could not be read when it was labeled in epoch 1"):
        opened.soft_labels(Supervision(), 1, np.array([3, 21]))
