"""Checkpoints: training restored from one continues bit for bit, and damaged ones are skipped with a warning."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kdaug import InputError
from kdaug.config import Optimization
from kdaug.training.checkpoints import load_newest_checkpoint, save_checkpoint
from kdaug.training.optim import LearningRateSchedule, create_ema, create_optimizer, create_scaler
from kdaug.training.state import TrainState
from kdaug.training.step import optimizer_step

FILES = ("weights.safetensors", "average.safetensors", "state.pt", "sha256.json")


def create_state(seed: int, settings: Optimization = Optimization(ema_decay=0.99)) -> TrainState:  # noqa: B008 - frozen
    """A small network with buffers and dropout, its optimizer and the moving average of its weights."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    optimizer = create_optimizer(network, settings)
    scaler = create_scaler(torch.device("cpu"), torch.float16)
    rate, average = LearningRateSchedule(optimizer, settings, 50), create_ema(network, settings)
    return TrainState(network, network, optimizer, rate, scaler, average)


def take_steps(state: TrainState, steps: int) -> TrainState:
    """Takes steps on fixed data; the dropout draws from torch's generator."""
    x = torch.linspace(-1, 1, 24).reshape(6, 4)
    for _ in range(steps):
        state.learning_rate.set(state.step)
        state.scaler.scale((state.network(x) ** 2).mean()).backward()
        optimizer_step(state, clip_norm=1.0)
        state.best_top1_error = 90.0 - state.step
        state.seconds += 1.5
    return state


def content_of(state: TrainState) -> list[Tensor | float | None]:
    """All that changes in training, and the state of torch's generator."""
    slots = [value for slot in state.optimizer.state.values() for value in slot.values()]
    average = state.ema.module.state_dict().values() if state.ema is not None else ()
    return [
        *(value.clone() for value in (*state.network.state_dict().values(), *average)),
        *(value.clone() if isinstance(value, Tensor) else value for value in slots),
        torch.get_rng_state(),
        state.step,
        state.best_top1_error,
        state.seconds,
        state.learning_rate.now(),
        *state.scaler.state_dict().values(),
    ]


def assert_same(one: list[Tensor | float | None], other: list[Tensor | float | None]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b


@pytest.mark.parametrize("has_ema", [True, False])
@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop-tf", "adamw"])
def test_restored_training_continues_bit_for_bit(tmp_path: Path, optimizer: str, has_ema: bool) -> None:
    settings = Optimization(optimizer=optimizer, decay_on="weights", ema_decay=0.9 if has_ema else None)
    state = take_steps(create_state(1, settings), 5)
    saved = content_of(state)
    assert save_checkpoint(state, tmp_path) == tmp_path / "step-00000005"
    later = content_of(take_steps(state, 7))

    restored = take_steps(create_state(2, settings), 3)
    assert load_newest_checkpoint(restored, tmp_path)
    assert_same(content_of(restored), saved)
    assert_same(content_of(take_steps(restored, 7)), later)


def test_a_checkpoint_has_its_files_and_checksums(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(take_steps(create_state(1), 2), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000002"]
    assert sorted(p.name for p in checkpoint.iterdir()) == sorted(FILES)
    assert json.loads((checkpoint / "sha256.json").read_text()) == {
        name: hashlib.sha256((checkpoint / name).read_bytes()).hexdigest() for name in FILES[:3]
    }


def test_the_state_file_loads_with_weights_only(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(take_steps(create_state(1), 2), tmp_path)
    assert torch.load(checkpoint / "state.pt", weights_only=True)["step"] == 2


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    state = create_state(1)
    for count in (1, 2, 3, 4):
        save_checkpoint(take_steps(state, 1), tmp_path)
        kept = [f"step-{step:08d}" for step in range(max(1, count - 1), count + 1)]
        assert sorted(p.name for p in tmp_path.iterdir()) == kept


def test_saving_the_same_step_again_replaces_the_checkpoint(tmp_path: Path) -> None:
    state = take_steps(create_state(1), 2)
    save_checkpoint(state, tmp_path)
    with torch.no_grad():
        state.network[0].weight.fill_(0.25)
    save_checkpoint(state, tmp_path)
    restored = create_state(2)
    assert load_newest_checkpoint(restored, tmp_path)
    assert (restored.network[0].weight == 0.25).all()


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    save_checkpoint(take_steps(create_state(1), 1), tmp_path)
    other = create_state(2)
    other.network.append(nn.Linear(3, 3))
    with pytest.raises(InputError, match=rf"^the checkpoint at step 1 in {tmp_path} does not fit: 4.bias is in"):
        load_newest_checkpoint(other, tmp_path)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [truncate, flip_one_bit, empty, remove, replace_by_folder])
def test_a_damaged_checkpoint_is_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: Callable[[Path], None]
) -> None:
    state = take_steps(create_state(1), 3)
    save_checkpoint(state, tmp_path)
    expected = content_of(state)
    newest = save_checkpoint(take_steps(state, 2), tmp_path)
    damage(newest / name)

    restored = create_state(2)
    assert load_newest_checkpoint(restored, tmp_path)
    assert_same(content_of(restored), expected)
    (message,) = caplog.messages
    assert f"checkpoint {newest} is damaged" in message
    assert "\n" not in message


@pytest.mark.parametrize("sums", ["[]", "null", "{}", '{"state.pt": ""}', "\x00", '"text"', "7"])
def test_invalid_checksums_are_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture, sums: str) -> None:
    newest = save_checkpoint(take_steps(create_state(1), 1), tmp_path)
    (newest / "sha256.json").write_text(sums)
    with pytest.raises(InputError, match=f"no valid checkpoint in {tmp_path}; restore one"):
        load_newest_checkpoint(create_state(2), tmp_path)
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("lost", ["optimizer", "step", "generators", "scaler"])
def test_a_missing_part_is_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture, lost: str) -> None:
    state = take_steps(create_state(1), 3)
    save_checkpoint(state, tmp_path)
    expected = content_of(state)
    newest = save_checkpoint(take_steps(state, 2), tmp_path)
    rest = torch.load(newest / "state.pt", weights_only=True)
    del rest[lost]
    torch.save(rest, newest / "state.pt")
    sums = json.loads((newest / "sha256.json").read_text())
    sums["state.pt"] = hashlib.sha256((newest / "state.pt").read_bytes()).hexdigest()
    (newest / "sha256.json").write_text(json.dumps(sums))
    restored = create_state(2)
    assert load_newest_checkpoint(restored, tmp_path)
    assert_same(content_of(restored), expected)
    assert len(caplog.messages) == 1


def test_without_valid_checkpoint_the_state_is_not_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for steps in (1, 2):
        checkpoint = save_checkpoint(take_steps(create_state(1), steps), tmp_path)
        truncate(checkpoint / "state.pt")
    state = take_steps(create_state(2), 1)
    before = content_of(state)
    with pytest.raises(
        InputError, match=r"no valid checkpoint in .*; restore one, or start a new run in another run.dir"
    ):
        load_newest_checkpoint(state, tmp_path)
    assert len(caplog.messages) == 2
    assert_same(content_of(state), before)


def test_other_files_in_the_folder_are_kept(tmp_path: Path) -> None:
    (tmp_path / "step-00000009.tar").write_text("mine")
    (tmp_path / "step-00000008.bak").mkdir()
    state = create_state(1)
    for _ in range(4):
        save_checkpoint(take_steps(state, 1), tmp_path)
    assert load_newest_checkpoint(create_state(2), tmp_path)
    left = {"step-00000003", "step-00000004", "step-00000008.bak", "step-00000009.tar"}
    assert {path.name for path in tmp_path.iterdir()} == left


def test_without_checkpoints_there_is_nothing_to_load(tmp_path: Path) -> None:
    assert not load_newest_checkpoint(create_state(1), tmp_path)
    assert not load_newest_checkpoint(create_state(1), tmp_path / "missing")


def test_an_incomplete_checkpoint_is_ignored_and_overwritten(tmp_path: Path) -> None:
    state = take_steps(create_state(1), 2)
    save_checkpoint(state, tmp_path)
    shutil.copytree(tmp_path / "step-00000002", tmp_path / ".step-00000003.part")
    restored = create_state(2)
    assert load_newest_checkpoint(restored, tmp_path)
    assert restored.step == 2
    save_checkpoint(take_steps(restored, 1), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


@pytest.mark.parametrize("call", range(6))
def test_a_failed_write_leaves_a_valid_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    state = take_steps(create_state(1), 1)
    save_checkpoint(state, tmp_path)
    left, real = [call], os.fsync

    def fsync(descriptor: int) -> None:
        if left[0] == 0:
            raise OSError(28, "No space left on device")
        left[0] -= 1
        real(descriptor)

    take_steps(state, 1)
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(state, tmp_path)
    restored = create_state(2)
    assert load_newest_checkpoint(restored, tmp_path)
    assert restored.step in (1, 2)


class Malicious:
    """Unpickled, this creates the folder `victim`."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.victim),))


def test_a_checkpoint_that_would_execute_code_is_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = save_checkpoint(take_steps(create_state(1), 1), tmp_path / "checkpoints")
    state = checkpoint / "state.pt"
    state.write_bytes(pickle.dumps({"step": Malicious(tmp_path / "executed")}, protocol=2))
    sums = json.loads((checkpoint / "sha256.json").read_text())
    sums["state.pt"] = hashlib.sha256(state.read_bytes()).hexdigest()
    (checkpoint / "sha256.json").write_text(json.dumps(sums))
    with pytest.raises(InputError, match="no valid checkpoint"):
        load_newest_checkpoint(create_state(2), tmp_path / "checkpoints")
    assert len(caplog.messages) == 1
    assert not (tmp_path / "executed").exists()
