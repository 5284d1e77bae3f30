"""Labelling: training from stored answers is the same training; stores are resumed, shared, verified, refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from kdaug.config import Recipe, to_yaml
from kdaug.errors import InputError
from kdaug.supervision.manifest import read_manifest, write_manifest
from kdaug.training import labelling, train
from kdaug.training.labelling import LabelRequest, label_views
from kdaug.training.label_verification import verify_labels

Changed = Callable[[Recipe, dict[str, Any]], Recipe]
Lines = Callable[[Path], list[dict[str, Any]]]
EXACT = LabelRequest(precision="float32")


@pytest.fixture(scope="module")
def store(taught: Path, taught_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers of the teacher of `taught`, float32, to all views of its two epochs; look only."""
    folder = tmp_path_factory.mktemp("labels") / "store"
    label_views(taught_recipe, folder, EXACT)
    return folder


@pytest.fixture
def student(taught_recipe: Recipe, changed: Changed, tmp_path: Path) -> Callable[..., Recipe]:
    """`taught_recipe` learning from stored labels in tmp_path/run, with settings changed."""
    return lambda folder, settings=None: changed(
        taught_recipe,
        {"teacher.source": "none", "teacher.labels": str(folder), "run.dir": str(tmp_path / "run"), **(settings or {})},
    )


def losses(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{n: v for n, v in line.items() if n != "seconds"} for line in lines]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("reading", ["renormalized", "grouped", "as-written"])
def test_training_from_exact_labels_is_training_with_the_teacher(
    reading: str, taught_recipe: Recipe, store: Path, student: Callable[..., Recipe], changed: Changed, lines_of: Lines,
    tmp_path: Path,
) -> None:  # fmt: skip
    settings = {"supervision.reading": reading}
    teacher = next((Path(taught_recipe.run.dir).parent / "teachers").iterdir())
    online = {**settings, "teacher.source": f"run:{teacher}", "run.dir": str(tmp_path / "online")}
    asked = train(changed(taught_recipe, online)).directory
    read = train(student(store, settings)).directory
    pairs = list(zip(lines_of(asked), lines_of(read), strict=True))
    for one, other in pairs:
        for name in ("loss", "cross_entropy", "divergence", "teacher_agreement", "val_loss"):
            if name in one:
                assert other[name] == pytest.approx(one[name], rel=1e-6, abs=5e-7), (name, one["step"])
    if reading != "grouped":
        assert (asked / "last.safetensors").read_bytes() == (read / "last.safetensors").read_bytes()


def test_half_precision_moves_the_weights_no_more_than_its_rounding(
    taught: Path, taught_recipe: Recipe, student: Callable[..., Recipe], tmp_path: Path
) -> None:
    label_views(taught_recipe, tmp_path / "half", LabelRequest())
    read = train(student(tmp_path / "half")).directory
    weights, exact = (safetensors.torch.load_file(run / "last.safetensors") for run in (read, taught))
    moved = max(float((weights[name].double() - exact[name].double()).abs().max()) for name in weights)
    assert 0 < moved < 1e-3


def test_any_network_seed_weight_k_and_temperature_learn_from_one_store(
    store: Path, student: Callable[..., Recipe], lines_of: Lines
) -> None:
    settings = {
        "student.name": "softmax_regression", "run.seed": 7, "views.seed": 0, "supervision.weight": 0.3,
        "supervision.k": 2, "supervision.temperature": 7.7, "supervision.reading": "renormalized",
        "optimization.epochs": 1,
    }  # fmt: skip
    run = train(student(store, settings)).directory
    assert all(line["divergence"] > 0 for line in lines_of(run) if line["kind"] == "step")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"views.seed": 5}, "views.seed: 0 -> 5"),
        ({"run.seed": 5}, "views.seed: 0 -> 5"),
        ({"views.policy": "randaugment-n2-m4@paper-geometric"}, "views.policy: .*m5.* -> .*m4"),
        ({"views.cutout": 8}, "views.cutout: 0 -> 8"),
        ({"views.flip": False}, "views.flip: True -> False"),
        ({"data.train_images": 255}, "samples: 256 -> 255"),
        ({"data.holdout": 0.1}, "data: "),
        ({"optimization.epochs": 3}, "epoch 2 is needed, but epoch-00002-0.safetensors is missing"),
        ({"optimization.epochs": 1, "optimization.clean_epochs": 1}, "clean epochs from: None -> 1"),
        ({"supervision.k": 9}, "holds the top 5 classes, but supervision.k is 9"),
    ],
)
def test_a_store_for_something_else_is_refused_before_anything_is_written(
    settings: dict[str, Any], says: str, store: Path, student: Callable[..., Recipe], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        train(student(store, settings))
    assert not (tmp_path / "run").exists()


def test_clean_epochs_are_labelled_as_they_are_seen(
    taught_recipe: Recipe, changed: Changed, lines_of: Lines, tmp_path: Path
) -> None:
    teacher = next((Path(taught_recipe.run.dir).parent / "teachers").iterdir())
    recipe = changed(
        taught_recipe,
        {"optimization.epochs": 1, "optimization.clean_epochs": 1, "teacher.source": f"run:{teacher}",
         "run.dir": str(tmp_path / "online")},
    )  # fmt: skip
    label_views(recipe, tmp_path / "store", EXACT)
    read = changed(recipe, {"teacher.labels": str(tmp_path / "store"), "run.dir": str(tmp_path / "stored")})
    assert losses(lines_of(train(recipe).directory)) == losses(lines_of(train(read).directory))


def test_stored_epochs_may_be_used_in_turn(
    taught_recipe: Recipe, student: Callable[..., Recipe], lines_of: Lines, tmp_path: Path
) -> None:
    label_views(taught_recipe, tmp_path / "one", replace(EXACT, cycle=1))
    assert len(list((tmp_path / "one").glob("epoch-*"))) == 1
    run = train(student(tmp_path / "one", {"optimization.epochs": 5})).directory
    divergence = [line["divergence"] for line in lines_of(run) if line["kind"] == "step"]
    assert len(divergence) == 20
    assert divergence[-1] < divergence[0], "the same views, better known every time"


@pytest.mark.parametrize(
    ("settings", "request_", "says"),
    [
        ({}, LabelRequest(epochs=(0, 3)), "--epochs 0:3 are not among the recipe's, which are 0:2"),
        ({}, LabelRequest(epochs=(1, 1)), "--epochs 1:1 are not among"),
        ({}, LabelRequest(k=0), "--k is 0"),
        ({}, LabelRequest(temperatures=(0.0,)), "--temperatures holds 0, but all must be above 0"),
        ({"teacher.source": "none"}, LabelRequest(), "teacher.source is none"),
        ({"teacher.labels": "x"}, LabelRequest(), "teacher.labels is given"),
        ({"views.policy": "pba-cifar10"}, LabelRequest(cycle=1), "follows the epoch"),
        ({"optimization.clean_epochs": 1}, LabelRequest(cycle=1), "cannot serve clean epochs"),
    ],
)
def test_what_cannot_be_stored_is_refused(
    settings: dict[str, Any], request_: LabelRequest, says: str, taught_recipe: Recipe, changed: Changed, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        label_views(changed(taught_recipe, settings), tmp_path / "store", request_)
    assert not (tmp_path / "store").exists()


def test_labelling_goes_on_where_it_was_stopped(
    taught_recipe: Recipe, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, looked = labelling._look, []

    def stopped(*arguments: Any) -> Any:
        looked.append(arguments[3].epoch)
        if len(looked) == 2:
            raise KeyboardInterrupt
        return look(*arguments)

    monkeypatch.setattr(labelling, "_look", stopped)
    with pytest.raises(KeyboardInterrupt):
        label_views(taught_recipe, tmp_path / "store", EXACT)
    label_views(taught_recipe, tmp_path / "store", EXACT)
    assert looked == [0, 1, 1], "what was written is not done again"
    assert {**contents(tmp_path / "store"), "recipe.yaml": b""} == {**contents(store), "recipe.yaml": b""}


def test_a_folder_with_something_else_in_it_is_left_alone(taught_recipe: Recipe, store: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("of value")
    with pytest.raises(InputError, match="exists and is not a label store"):
        label_views(taught_recipe, tmp_path, EXACT)
    before = contents(store)
    with pytest.raises(InputError, match=r"store of something else .*k: 5 -> 3"):
        label_views(taught_recipe, store, replace(EXACT, k=3))
    assert contents(store) == before


def test_a_full_disk_is_noticed_before_anything_is_written(
    taught_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelling.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(InputError, match="the disk has no"):
        label_views(taught_recipe, tmp_path / "store", EXACT)
    assert [path.name for path in (tmp_path / "store").iterdir()] == [".lock"]


def test_a_sound_store_is_verified(store: Path) -> None:
    seen = verify_labels(store, 100, None, "cpu", seed=0)
    assert (seen.views, seen.epochs, seen.wrong, seen.changed) == (100, 2, 0, [])
    assert max(seen.errors.values()) < 1e-5


def shifted(column: torch.Tensor) -> torch.Tensor:
    return column + 0.5


def not_a_number(column: torch.Tensor) -> torch.Tensor:
    return column * torch.nan


def turned_round(column: torch.Tensor) -> torch.Tensor:
    return column.view(torch.int16).flip(1).contiguous().view(torch.uint16)


@pytest.mark.parametrize(
    ("column", "spoil", "named"),
    [
        ("logits", shifted, "log-probability"),
        ("logits", not_a_number, "log-probability"),
        ("classes", turned_round, "log-probability"),
        ("label", shifted, "label"),
        ("log_sum_exp", shifted, "log-sum-exp"),
        ("clean", shifted, "label without augmentation"),
    ],
)
def test_answers_that_are_not_the_teachers_are_found(
    column: str, spoil: Callable[[torch.Tensor], torch.Tensor], named: str, store: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "store"
    shutil.copytree(store, folder)
    for path in folder.glob("clean*" if column == "clean" else "epoch-*"):
        columns = safetensors.torch.load_file(path)
        name = "label" if column == "clean" else column
        columns[name] = spoil(columns[name])
        path.write_bytes(safetensors.torch.save(columns, {"store": read_manifest(store).digest}))
    seen = verify_labels(folder, 64, None, "cpu", seed=0)
    assert seen.wrong > 60
    assert seen.errors[named] > 0.1
    assert all(error < 1e-5 for name, error in seen.errors.items() if name != named)
    assert seen.changed == []


def test_another_teacher_is_found(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    shutil.copytree(store, folder)
    other = replace(read_manifest(store), teacher="another")
    (folder / "manifest.json").unlink()
    write_manifest(other, folder)
    for path in folder.glob("*.safetensors"):
        path.write_bytes(safetensors.torch.save(safetensors.torch.load_file(path), {"store": other.digest}))
    seen = verify_labels(folder, 10, None, "cpu", seed=0)
    assert len(seen.changed) == 1
    assert "teacher: another -> " in seen.changed[0]


def test_a_teacher_that_is_gone_is_not_trained_again_to_verify(
    taught_recipe: Recipe, store: Path, changed: Changed, tmp_path: Path
) -> None:
    folder = tmp_path / "store"
    shutil.copytree(store, folder)
    (folder / "recipe.yaml").write_text(
        to_yaml(changed(taught_recipe, {"run.dir": str(tmp_path / "elsewhere" / "run")}))
    )
    with pytest.raises(InputError, match=r"the teacher of this store was trained in .*elsewhere.*, which is gone"):
        verify_labels(folder, 10, None, "cpu", seed=0)
    assert not (tmp_path / "elsewhere").exists()


def lost(path: Path) -> None:
    path.unlink()


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def without_a_column(path: Path) -> None:
    columns = safetensors.torch.load_file(path)
    columns.popitem()
    path.write_bytes(safetensors.torch.save(columns))


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("manifest.json", lost),
        ("manifest.json", cut_short),
        ("recipe.yaml", lost),
        ("clean.safetensors", lost),
        ("clean.safetensors", cut_short),
        ("epoch-00001-0.safetensors", lost),
        ("epoch-00001-0.safetensors", cut_short),
        ("epoch-00001-0.safetensors", without_a_column),
    ],
)
def test_what_is_spoilt_is_made_anew_by_the_same_command_and_nothing_else_is(
    name: str, spoil: Callable[[Path], None], taught_recipe: Recipe, store: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "store"
    shutil.copytree(store, folder)
    (folder / f"{name}.123.part").write_bytes(b"left over")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    spoil(folder / name)
    label_views(taught_recipe, folder, EXACT)
    (folder / f"{name}.123.part").unlink(missing_ok=True)
    assert {**contents(folder), "recipe.yaml": b""} == {**contents(store), "recipe.yaml": b""}
    assert {path.name for path in folder.iterdir() if path.stat().st_mtime_ns != before[path.name]} == {name}


def test_parts_labelled_apart_are_put_together_by_copying_them(
    taught_recipe: Recipe, store: Path, student: Callable[..., Recipe], tmp_path: Path
) -> None:
    for epoch in (0, 1):
        label_views(taught_recipe, tmp_path / f"part{epoch}", replace(EXACT, epochs=(epoch, epoch + 1)))
    with pytest.raises(InputError, match=r"epoch 0 is needed, but .* --epochs 0:2, makes it"):
        train(student(tmp_path / "part1"))
    shutil.copy(tmp_path / "part0" / "epoch-00000-0.safetensors", tmp_path / "part1")
    assert {**contents(tmp_path / "part1"), "recipe.yaml": b""} == {**contents(store), "recipe.yaml": b""}
    label_views(taught_recipe, tmp_path / "part0", EXACT)
    assert contents(tmp_path / "part0").keys() == contents(store).keys(), "or added later"


def test_a_place_that_cannot_be_is_refused_before_the_teacher_is_trained(
    taught_recipe: Recipe, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelling, "find_teacher", lambda *_: pytest.fail("asked for the teacher"))
    (tmp_path / "file").write_text("of value")
    with pytest.raises(InputError, match="exists and is not a label store"):
        label_views(taught_recipe, tmp_path / "file", EXACT)
    with pytest.raises(InputError, match=r"store of something else \(precision: float32 -> float16\)"):
        label_views(taught_recipe, store, LabelRequest())
    monkeypatch.setattr(labelling.os, "access", lambda *_: False)
    with pytest.raises(InputError, match="/proc cannot be written to; choose another folder with --out"):
        label_views(taught_recipe, Path("/proc/labels"), EXACT)


def test_a_store_that_another_process_fills_is_left_alone(
    taught_recipe: Recipe,
    store: Path,
    held_elsewhere: Callable[[Path], AbstractContextManager[None]],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "store"
    shutil.copytree(store, folder)
    (folder / "epoch-00001-0.safetensors").unlink()
    before = contents(folder)
    with held_elsewhere(folder), pytest.raises(InputError, match=f"{folder} is being filled by another process; wait"):
        label_views(taught_recipe, folder, EXACT)
    assert contents(folder) == before
    label_views(taught_recipe, folder, EXACT)
    assert {**contents(folder), "recipe.yaml": b""} == {**contents(store), "recipe.yaml": b""}


def test_to_verify_some_views_the_teacher_looks_at_their_images_alone(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = dict[str, set[int]](clean=set(), views=set())
    look, answer = labelling.look_at_clean, labelling.answers

    def look_at_clean(context: Any, teacher: Any, rows: Any) -> torch.Tensor:
        looked["clean"].update(rows.tolist())
        return look(context, teacher, rows)

    def answers(*arguments: Any) -> Iterator[Any]:
        for rows, records in answer(*arguments):
            looked["views"].update(rows.tolist())
            yield rows, records

    monkeypatch.setattr(labelling, "clean_label_log_probs", look_at_clean)
    monkeypatch.setattr(labelling, "answers", answers)
    assert verify_labels(store, 10, None, "cpu", seed=0).wrong == 0
    assert looked["clean"] == looked["views"]
    assert 5 <= len(looked["views"]) <= 10


def test_epochs_in_which_the_teacher_does_not_look_on_need_no_labels(
    taught_recipe: Recipe, changed: Changed, student: Callable[..., Recipe], tmp_path: Path
) -> None:
    settings = {"optimization.clean_epochs": 1, "supervision.when": "policy"}
    label_views(changed(taught_recipe, settings), tmp_path / "store", replace(EXACT, epochs=(0, 2)))
    assert train(student(tmp_path / "store", settings)).directory.exists()


def test_several_processes_share_the_labelling(taught_recipe: Recipe, store: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(to_yaml(taught_recipe))
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import conftest; from kdaug.cli.main import main; "
        "sys.exit(main(sys.argv[2:]))"
    )
    (tmp_path / "program.py").write_text(program)
    command = ["label", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "store"), "--precision", "float32"]
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(tmp_path / "program.py"), str(Path(__file__).parent), *command],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    ours, theirs = contents(tmp_path / "store"), contents(store)
    assert {**ours, "recipe.yaml": b""} == {**theirs, "recipe.yaml": b""}
