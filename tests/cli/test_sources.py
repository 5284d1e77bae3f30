"""kdaug train on the same photos as a folder, as WebDataset shards and as a Hugging Face dataset."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
import yaml
from support.recipes import PHOTOS_FLAGS
from support.runs import read_lines, without_seconds

ALONE = ("--teacher.source", "none", "--data.workers", "0")


def pack(photos: Path, root: Path, per_shard: int) -> Path:
    """The photos of train/ and val/ as shards of at most `per_shard` samples, the last photo first."""
    root.mkdir()
    for split in ("train", "val"):
        paths = sorted((photos / split).rglob("*.jpg"), reverse=True)
        for start in range(0, len(paths), per_shard):
            with tarfile.open(root / f"shapes-{split}-{start:04}.tar", "w") as tar:
                for path in paths[start : start + per_shard]:
                    tar.add(path, f"{path.parent.name}/{path.name}")
    return root


def test_hub_and_folder_train_alike(kdaug: Callable, split_shapes: Path, tmp_path: Path) -> None:
    written = datasets.load_dataset("imagefolder", data_dir=str(split_shapes), cache_dir=str(tmp_path / "hf"))
    written.save_to_disk(tmp_path / "written")
    runs = {"folder": split_shapes, "hub": tmp_path / "written"}
    for name, root in runs.items():
        flags = ("--data.name", name, "--data.root", root, "--run.dir", tmp_path / name)
        result = kdaug("train", "photos", *PHOTOS_FLAGS, *ALONE, *flags)
        assert result.code == 0, result.err
    assert "on 36 images of 3 classes" in result.err + result.out
    assert without_seconds(read_lines(tmp_path / "folder")) == without_seconds(read_lines(tmp_path / "hub"))
    weights = [(tmp_path / name / "last.safetensors").read_bytes() for name in runs]
    assert weights[0] == weights[1]


def test_shards_of_any_size_train_alike(kdaug: Callable, split_shapes: Path, tmp_path: Path) -> None:
    for name, per_shard in (("large", 100), ("small", 5)):
        root = pack(split_shapes, tmp_path / f"shards-{name}", per_shard)
        flags = ("--data.name", "shards", "--data.root", root, "--run.dir", tmp_path / name)
        result = kdaug("train", "photos", *PHOTOS_FLAGS, *ALONE, *flags)
        assert result.code == 0, result.err
    assert without_seconds(read_lines(tmp_path / "large")) == without_seconds(read_lines(tmp_path / "small"))
    result = json.loads(kdaug("eval", tmp_path / "large", "--json", "--run.device", "cpu").out)
    assert result["images"] == 12
    assert result["top1_error"] == read_lines(tmp_path / "large")[-1]["top1_error"]
    assert yaml.safe_load((tmp_path / "large" / "recipe.yaml").read_text())["data"]["name"] == "shards"


def test_a_damaged_photo_in_a_shard_is_left_out(kdaug: Callable, split_shapes: Path, tmp_path: Path) -> None:
    split = shutil.copytree(split_shapes, tmp_path / "split")
    (split / "train" / "disc" / "03.jpg").write_bytes(b"no image")
    root = pack(split, tmp_path / "shards", 100)
    flags = ("--data.name", "shards", "--data.root", root, "--run.dir", tmp_path / "run")
    more = ("--data.max-unreadable", "0.1", "--optimization.epochs", "2")
    result = kdaug("train", "photos", *PHOTOS_FLAGS, *ALONE, *flags, *more)
    assert result.code == 0, result.err
    shard = root / "shapes-train-0000.tar"
    assert f"unreadable image left out: {shard}:disc/03 (cannot identify" in result.err + result.out


@pytest.mark.parametrize("name", ["shards", "hub"])
def test_missing_data_are_one_line(name: str, kdaug: Callable, tmp_path: Path) -> None:
    result = kdaug("train", "photos", *PHOTOS_FLAGS, "--data.name", name, "--data.root", tmp_path / "nothing")
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert f"{tmp_path / 'nothing'}" in result.err
