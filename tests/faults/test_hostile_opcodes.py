"""Hostile pickle opcodes and storages, wherever kdaug loads a file: refused, and nothing is executed."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.hostile import Command, Opcodes, one_image

from kdaug import config
from kdaug.errors import InputError
from kdaug.networks import read_weights
from kdaug.supervision import load_teacher
from kdaug.supervision.manifest import DatasetFingerprint, Manifest
from kdaug.supervision.records import LabelFile, map_records, read_unaugmented_label_log_probs
from kdaug.training.checkpoints import load_newest_checkpoint
from kdaug.views import ViewPlan


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that exists once code was executed."""
    return tmp_path / "canary"


@pytest.fixture(params=Opcodes.NAMES)
def opcodes(request: pytest.FixtureRequest, canary: Path) -> bytes:
    """A pickle that runs a command."""
    return Opcodes(f"touch {canary}").named(request.param)


def torch_zip(data: bytes) -> bytes:
    """A file of torch.save whose pickle is `data`."""
    saved, changed = io.BytesIO(), io.BytesIO()
    torch.save({"w": torch.zeros(3)}, saved)
    with zipfile.ZipFile(saved) as before, zipfile.ZipFile(changed, "w", zipfile.ZIP_STORED) as after:
        for name in before.namelist():
            after.writestr(name, data if name.endswith("data.pkl") else before.read(name))
    return changed.getvalue()


def npz(data: bytes) -> bytes:
    """A NumPy archive whose array `op` is an object array, stored as the pickle `data`."""
    array, archive = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "|O", "fortran_order": False, "shape": ()})
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("op.npy", array.getvalue() + data)
        file.writestr("format.npy", array.getvalue() + data)
    return archive.getvalue()


FORMS = {"pickle": bytes, "torch": torch_zip, "npz": npz}
in_each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def test_each_pickle_executes_code_if_loaded_carelessly(opcodes: bytes, canary: Path, tmp_path: Path) -> None:
    pickle.loads(opcodes)
    assert canary.exists()
    for form, load in (
        (torch_zip, lambda path: torch.load(path, weights_only=False)),
        (npz, lambda path: np.load(path, allow_pickle=True)["op"]),
    ):
        canary.unlink()
        (tmp_path / "file").write_bytes(form(opcodes))
        load(tmp_path / "file")
        assert canary.exists()


@in_each_form
@pytest.mark.parametrize("source", ["file:{}/last.safetensors", "file:{}/w.pth", "run:{}"])
def test_a_teacher_is_refused(
    opcodes: bytes, form: Callable[[bytes], bytes], source: str, canary: Path, tmp_path: Path
) -> None:
    for name in ("w.pth", "last.safetensors"):
        (tmp_path / name).write_bytes(form(opcodes))
    source = source.format(tmp_path)
    with pytest.raises(InputError, match=r"is not a weight file.*would have to run code when loaded is refused"):
        load_teacher(config.Teacher(source), source, one_image())
    assert not canary.exists()


@in_each_form
def test_a_checkpoint_is_refused(
    opcodes: bytes, form: Callable[[bytes], bytes], stopped_run: Path, canary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With correct checksums, in each of its files."""
    folder = stopped_run / "checkpoints"
    newest, *others = sorted(folder.glob("step-*"), reverse=True)
    for other in others:
        shutil.rmtree(other)
    sums = json.loads((newest / "sha256.json").read_text())
    for name in sums:
        original = (newest / name).read_bytes()
        (newest / name).write_bytes(form(opcodes))
        digest = hashlib.sha256(form(opcodes)).hexdigest()
        (newest / "sha256.json").write_text(json.dumps({**sums, name: digest}))
        with pytest.raises(InputError, match="no valid checkpoint in"):
            load_newest_checkpoint(SimpleNamespace(ema=None), folder)
        (newest / name).write_bytes(original)
    assert caplog.text.count("is damaged (") == len(sums)
    assert not canary.exists()


@in_each_form
def test_a_label_store_is_refused(opcodes: bytes, form: Callable[[bytes], bytes], tmp_path: Path, canary: Path) -> None:
    manifest = Manifest(DatasetFingerprint(2, ("a", "b"), "", {}), "", k=1, temperatures=(), precision="float32")
    part = LabelFile(epoch=0, index=0, first=0, end=2)
    for path in (part.path(tmp_path), tmp_path / "clean.safetensors"):
        path.write_bytes(form(opcodes))
    with pytest.raises(InputError, match="is missing, damaged or belongs to another store"):
        map_records(part, manifest, tmp_path)
    with pytest.raises(InputError, match=r"clean.safetensors is missing or damaged"):
        read_unaugmented_label_log_probs(manifest, tmp_path)
    assert not canary.exists()


@in_each_form
def test_a_plan_file_is_refused(opcodes: bytes, form: Callable[[bytes], bytes], tmp_path: Path, canary: Path) -> None:
    (tmp_path / "plan.npz").write_bytes(form(opcodes))
    with pytest.raises(InputError, match=r"plan .*plan.npz: "):
        ViewPlan.load(tmp_path / "plan.npz")
    assert not canary.exists()


class Rebuilt:
    """Unpickled, a tensor with this size, stride and offset in a storage of four numbers."""

    def __init__(self, size: tuple[int, ...], stride: tuple[int, ...], offset: int) -> None:
        self.arguments = torch.zeros(4).storage(), offset, size, stride, False, {}

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.arguments


STORAGES = {
    "negative stride": ((2,), (-1,), 1),
    "negative offset": ((2,), (1,), -1),
    "negative size": ((-2,), (1,), 0),
    "size beyond the storage": ((1000,), (1,), 0),
    "offset beyond the storage": ((2,), (1,), 100),
    "stride beyond the storage": ((2,), (1000,), 0),
    "size that overflows": ((1 << 62, 4), (4, 1), 0),
}


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
def test_a_tensor_outside_its_storage_is_refused(storage: Any, zipped: bool, tmp_path: Path) -> None:
    torch.save({"w": Rebuilt(*storage)}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"w.pth is not a weight file"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("change", ["short", "missing", "compressed"])
def test_a_zip_with_a_wrong_record_is_refused(change: str, tmp_path: Path) -> None:
    saved = io.BytesIO()
    torch.save({"w": torch.arange(1000.0)}, saved)
    with zipfile.ZipFile(saved) as before, zipfile.ZipFile(tmp_path / "w.pth", "w") as after:
        for name in before.namelist():
            record = before.read(name)
            if name.endswith("data/0"):
                if change == "missing":
                    continue
                record = record[:16] if change == "short" else bytes(len(record) * 4)
            after.writestr(name, record, zipfile.ZIP_DEFLATED if change == "compressed" else zipfile.ZIP_STORED)
    with pytest.raises(InputError, match=r"w.pth is not a weight file"):
        read_weights(tmp_path / "w.pth")


def test_the_allowed_class_holds_attributes_and_calls_nothing(tmp_path: Path, canary: Path) -> None:
    """argparse.Namespace is allowed beside the tensors; a command in its attributes is still refused."""
    weights = {"w": torch.ones(2)}
    torch.save({"model": weights, "args": argparse.Namespace(lr=0.1, model="x")}, tmp_path / "good.pth")
    assert torch.equal(read_weights(tmp_path / "good.pth")[0]["w"], weights["w"])
    hostile = argparse.Namespace(lr=Command(f"touch {canary}"))
    torch.save({"model": weights, "args": hostile}, tmp_path / "bad.pth")
    with pytest.raises(InputError, match="would have to run code when loaded is refused"):
        read_weights(tmp_path / "bad.pth")
    assert not canary.exists()


def test_allowing_the_class_does_not_last(tmp_path: Path) -> None:
    """The program around kdaug keeps its own rules."""
    torch.save({"model": {"w": torch.ones(2)}, "args": argparse.Namespace()}, tmp_path / "w.pth")
    read_weights(tmp_path / "w.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "w.pth", weights_only=True)
