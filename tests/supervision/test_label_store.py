"""The label store: what comes out is what the teacher said, for any K, temperature and reading stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save
from torch import Tensor

from kdaug import config
from kdaug.config import Reading
from kdaug.errors import InputError
from kdaug.supervision import distillation_loss, label_store, open_label_store, soft_labels_from_logits
from kdaug.supervision.manifest import DatasetFingerprint, Manifest, manifest_differences, read_manifest, write_manifest
from kdaug.supervision.label_store import LabelStore
from kdaug.supervision.records import complete_epochs, empty_records, epoch_files, make_records, write_records

SAMPLES, CLASSES = 23, 12
SUBJECT = DatasetFingerprint(
    SAMPLES, tuple(f"c{i}" for i in range(CLASSES)), "data", {"views.seed": 0, "views.policy": "none"}
)
MANIFEST = Manifest(SUBJECT, "teacher", 5, (2.0, 10.0), "float32")
READINGS: list[Reading] = ["as-written", "renormalized", "grouped"]


def logits_of(epoch: int, samples: int = SAMPLES, classes: int = CLASSES) -> Tensor:
    """What a teacher would say in `epoch`, float32 [N,C]."""
    return torch.tensor(np.random.default_rng(epoch).normal(0, 4, (samples, classes)), dtype=torch.float32)


def labels_of(samples: int = SAMPLES) -> Tensor:
    return torch.arange(samples) % CLASSES


def fill(manifest: Manifest, folder: Path) -> Path:
    write_manifest(manifest, folder)
    for part in epoch_files(manifest, range(2)):
        logits, labels = logits_of(part.epoch)[part.first : part.end], labels_of()[part.first : part.end]
        write_records(make_records(logits, labels, manifest), part, manifest, folder)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return fill(MANIFEST, tmp_path / "labels")


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize(("k", "stored"), [(1, 5), (3, 5), (5, 5), (12, 12), (99, 12)])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
def test_the_loss_from_stored_answers_is_the_loss_from_the_teacher(
    reading: Reading, k: int, stored: int, temperature: float, tmp_path: Path
) -> None:
    folder = fill(replace(MANIFEST, k=stored), tmp_path / "labels")
    settings = config.Supervision(1.5, k, temperature, reading)
    opened = open_label_store(folder, SUBJECT, settings, range(2))
    rows = np.array([22, 0, 7, 7])
    student = torch.tensor(np.random.default_rng(9).normal(0, 3, (4, CLASSES)), dtype=torch.float32)
    for epoch in (1, 0):
        asked = distillation_loss(
            settings, student, soft_labels_from_logits(logits_of(epoch)[rows], settings), labels_of()[rows]
        )
        read = distillation_loss(settings, student, opened.answer(settings, epoch, rows), labels_of()[rows])
        torch.testing.assert_close(read.loss, asked.loss, rtol=1e-6, atol=1e-6)
        assert read.agreement is not None
        assert asked.agreement is not None
        assert torch.equal(read.agreement, asked.agreement)
        if reading != "grouped" or k >= CLASSES:
            assert torch.equal(read.loss, asked.loss), "the very same bits"


@given(rows=st.lists(st.integers(0, SAMPLES - 1), min_size=1, max_size=40), epoch=st.integers(0, 1))
def test_any_rows_come_from_any_of_several_files_in_the_order_asked_for(
    rows: list[int], epoch: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_store, "ROWS_PER_FILE", 10)
        folder = fill(MANIFEST, tmp_path_factory.mktemp("labels"))
        found = LabelStore(folder, MANIFEST).records(epoch, np.array(rows))
    whole = make_records(logits_of(epoch), labels_of(), MANIFEST)
    for name, value in whole.items():
        assert torch.equal(found[name].to(value.dtype), value[rows]), name


def test_half_precision_keeps_log_probabilities_to_a_thousandth_of_their_size(tmp_path: Path) -> None:
    half = replace(MANIFEST, precision="float16")
    found = LabelStore(fill(half, tmp_path / "labels"), half).records(0, np.arange(SAMPLES))
    exact = logits_of(0).double().log_softmax(1)
    top = exact.topk(5, dim=1)
    assert torch.equal(found["classes"], top.indices)
    torch.testing.assert_close(found["logits"].double(), top.values, rtol=2**-11, atol=2**-24)
    own = exact.gather(1, labels_of()[:, None])[:, 0]
    torch.testing.assert_close(found["label"].double(), own, rtol=2**-11, atol=2**-24)
    for place, temperature in enumerate((2.0, 10.0)):
        expected = (exact / temperature).exp().sum(1).log()
        torch.testing.assert_close(found["log_sum_exp"][:, place].double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("k", [1, 5, 50])
@pytest.mark.parametrize("temperatures", [(), (2.0,), (2.0, 10.0)])
def test_a_view_takes_no_more_bytes_than_promised(k: int, temperatures: tuple[float, ...], tmp_path: Path) -> None:
    subject = replace(SUBJECT, samples=5000, classes=tuple(str(i) for i in range(100)))
    manifest = Manifest(subject, "teacher", k, temperatures, "float16")
    assert manifest.bytes_per_view <= 4 + 4 * k + 4 * (1 + len(temperatures))
    (part,) = epoch_files(manifest, [0])
    write_records(
        make_records(logits_of(0, 5000, 100), torch.zeros(5000, dtype=torch.int64), manifest), part, manifest, tmp_path
    )
    written = part.path(tmp_path).stat().st_size
    assert 5000 * manifest.bytes_per_view <= written < 5000 * manifest.bytes_per_view + 600


def test_classes_beyond_32767_are_kept(tmp_path: Path) -> None:
    subject = replace(SUBJECT, samples=2, classes=tuple(str(i) for i in range(60_000)))
    manifest = Manifest(subject, "teacher", 2, (), "float16")
    logits = torch.zeros(2, 60_000)
    logits[0, 59_999], logits[0, 40_000], logits[1, 3], logits[1, 32_768] = 9, 8, 9, 8
    write_records(
        make_records(logits, torch.tensor([0, 1]), manifest), epoch_files(manifest, [0])[0], manifest, tmp_path
    )
    found = LabelStore(tmp_path, manifest).records(0, np.array([0, 1]))
    assert found["classes"].tolist() == [[59_999, 40_000], [3, 32_768]]


def test_the_manifest_comes_back_as_it_was(store: Path) -> None:
    assert read_manifest(store) == MANIFEST
    assert manifest_differences(read_manifest(store), MANIFEST) == []


@pytest.mark.parametrize(
    ("there", "wanted", "settings", "epochs", "says"),
    [
        ({}, {"data": "others"}, {}, 2, "of other views than these .data: data -> others."),
        ({}, {"views": {**SUBJECT.views, "views.seed": 1}}, {}, 2, "views.seed: 0 -> 1"),
        ({}, {"views": {**SUBJECT.views, "views.policy": "x"}}, {}, 2, "views.policy: none -> x"),
        ({}, {"classes": ("a", "b")}, {}, 2, r"classes: 12 \(\w+\) -> 2 \(\w+\)"),
        ({}, {"samples": 24}, {}, 2, "samples: 23 -> 24"),
        ({}, {}, {"k": 6}, 2, "holds the top 5 classes, but supervision.k is 6"),
        ({}, {}, {"temperature": 4.0, "reading": "grouped"}, 2, "knows temperatures 1, 2, 10, but .* is 4"),
        ({}, {}, {"temperature": 4.0, "reading": "as-written"}, 2, "knows temperatures 1, 2, 10, but .* is 4"),
        ({}, {}, {}, 3, r"epoch 2 is needed, but epoch-00002-0.safetensors is missing; .* --epochs 2:3, makes it"),
        ({"cycle": 3}, {}, {}, 9, r"epoch 2 is needed, but .*; kdaug label, given the same again, makes it"),
        ({}, {}, {"divergence": "decoupled"}, 2, "top 5 classes, but supervision.divergence decoupled needs all 12"),
    ],
)
def test_a_store_that_does_not_serve_is_refused_naming_what_differs(
    there: dict[str, object],
    wanted: dict[str, object],
    settings: dict[str, object],
    epochs: int,
    says: str,
    tmp_path: Path,
) -> None:
    folder = fill(replace(MANIFEST, **there), tmp_path / "labels")
    with pytest.raises(InputError, match=says):
        open_label_store(folder, replace(SUBJECT, **wanted), config.Supervision(**{"k": 5, **settings}), range(epochs))


def test_a_store_in_turn_serves_any_number_of_epochs(tmp_path: Path) -> None:
    folder = fill(replace(MANIFEST, cycle=2), tmp_path / "labels")
    assert open_label_store(folder, SUBJECT, config.Supervision(), range(1000)).cycle == 2
    renormalized = config.Supervision(temperature=3.7, reading="renormalized")
    assert open_label_store(folder, SUBJECT, renormalized, [7]).cycle == 2, "any temperature will do for renormalized"


def test_only_epochs_in_which_the_teacher_looks_on_are_needed(store: Path) -> None:
    (store / "epoch-00000-0.safetensors").unlink()
    assert open_label_store(store, SUBJECT, config.Supervision(), [1]).manifest == MANIFEST
    assert complete_epochs(MANIFEST, store) == [1]


def a_file_is_lost(folder: Path) -> None:
    (folder / "epoch-00001-0.safetensors").unlink()


def a_file_is_cut_short(folder: Path) -> None:
    path = folder / "epoch-00001-0.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def the_manifest_is_cut_short(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:-9])


def the_manifest_is_of_another_version(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))


def the_manifest_is_lost(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def a_file_is_of_another_store(folder: Path) -> None:
    fill(replace(MANIFEST, teacher="another"), folder / "other")
    (folder / "other" / "epoch-00001-0.safetensors").replace(folder / "epoch-00001-0.safetensors")


def a_file_lacks_classes(folder: Path) -> None:
    path = folder / "epoch-00001-0.safetensors"
    columns = {
        name: column[:, :2].contiguous() if column.ndim > 1 else column for name, column in load_file(path).items()
    }
    path.write_bytes(save(columns, {"store": MANIFEST.digest}))


def the_manifest_says_another_k(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "k": 9}))


def the_manifest_says_no_number(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "k": "5"}))


def test_classes_that_there_are_not_are_noticed_when_read(store: Path) -> None:
    path = store / "epoch-00001-0.safetensors"
    columns = load_file(path)
    columns["classes"] = torch.full((SAMPLES, 5), 600, dtype=torch.int32).to(torch.uint16)
    path.write_bytes(save(columns, {"store": MANIFEST.digest}))
    opened = open_label_store(store, SUBJECT, config.Supervision(), range(2))
    with pytest.raises(InputError, match=r"epoch-00001-0.safetensors is damaged; delete it"):
        opened.answer(config.Supervision(), 1, np.array([0]))


@pytest.mark.parametrize("k", [1, 3, 5, 12])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_equal_logits_are_ranked_alike_whether_stored_or_not(k: int, dtype: torch.dtype, tmp_path: Path) -> None:
    manifest = replace(MANIFEST, k=12 if k == 12 else 7, subject=replace(SUBJECT, samples=2000))
    logits = torch.tensor(np.random.default_rng(0).normal(0, 1, (2000, CLASSES))).to(dtype)
    logits[:40] = logits[:40].round()
    labels = torch.zeros(2000, dtype=torch.int64)
    write_manifest(manifest, tmp_path)
    write_records(make_records(logits, labels, manifest), epoch_files(manifest, [0])[0], manifest, tmp_path)
    settings = config.Supervision(k=k)
    asked, read = (
        soft_labels_from_logits(logits, settings, labels),
        LabelStore(tmp_path, manifest).answer(settings, 0, np.arange(2000)),
    )
    assert torch.equal(asked.first, read.first)
    assert torch.equal(asked.logits, read.logits)
    assert (asked.top is None and read.top is None) or torch.equal(asked.top, read.top)
    assert (logits.float().sort(1).values.diff(dim=1) == 0).any(1).sum() > 40, "there are ties"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (a_file_is_lost, r"epoch 1 is needed, but epoch-00001-0.safetensors is missing"),
        (a_file_is_cut_short, r"epoch-00001-0.safetensors is damaged or of another store"),
        (a_file_is_of_another_store, r"epoch-00001-0.safetensors is damaged or of another store"),
        (a_file_lacks_classes, r"epoch-00001-0.safetensors is damaged or of another store"),
        (the_manifest_says_another_k, r"epoch-00000-0.safetensors is damaged or of another store"),
        (the_manifest_says_no_number, "manifest.json is damaged"),
        (the_manifest_is_cut_short, "manifest.json is damaged"),
        (the_manifest_is_of_another_version, "is of version 99"),
        (the_manifest_is_lost, "is not a label store"),
    ],
)
def test_a_spoilt_store_is_named(spoil: Callable[[Path], None], says: str, store: Path) -> None:
    spoil(store)
    with pytest.raises(InputError, match=says):
        open_label_store(store, SUBJECT, config.Supervision(), range(2))


def test_an_image_that_could_not_be_read_when_labelled_is_named(tmp_path: Path) -> None:
    records = empty_records(SAMPLES, MANIFEST)
    for name, value in make_records(logits_of(0), labels_of(), MANIFEST).items():
        records[name][:20] = value[:20]
    for part in epoch_files(MANIFEST, range(2)):
        write_records(records, part, MANIFEST, tmp_path)
    opened = LabelStore(tmp_path, MANIFEST)
    assert opened.answer(config.Supervision(), 0, np.array([0, 19])).logits.isfinite().all()
    with pytest.raises(InputError, match="image 21 could not be read when it was labelled in epoch 1"):
        opened.answer(config.Supervision(), 1, np.array([3, 21]))
