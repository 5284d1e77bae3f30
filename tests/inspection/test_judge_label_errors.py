"""tools/judge_label_errors.py on a made-up list, and its committed results."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from support.tools import load_tool

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_tool("judge_label_errors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """200 images of two classes; the network contradicts the labels of images 0 to 29, 0 the most. Published are the
    even ones below 40; people confirmed those below 10."""
    labels = np.arange(200) % 2
    own = np.where(np.arange(200) < 30, 0.05 + np.arange(200) / 1000, 0.9)
    probs = np.stack([np.where(labels == 0, own, 1 - own), np.where(labels == 1, own, 1 - own)], axis=1)
    entries = [{"id": image, "mturk": {"given": 2 if image < 10 else 3}} for image in range(0, 40, 2)]
    for name, array in (
        ("original_test_labels/mnist_test_set_original_labels", labels.astype(np.uint16)),
        ("cross_validated_predicted_probabilities/mnist_test_set_pyx", probs),
    ):
        (tmp_path / name).parent.mkdir()
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "mturk").mkdir()
    (tmp_path / "mturk/mnist_mturk.json").write_text(json.dumps(entries))
    return tmp_path


def test_precision_and_recall(tool: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool.main([str(folder), "mnist", "--json", str(folder / "out/result.json")])
    result = json.loads((folder / "out/result.json").read_text())
    assert result == json.loads(capsys.readouterr().out)
    assert (result["found"], result["candidates"], result["confirmed"], result["error"]) == (30, 20, 5, 15.0)
    assert result["precision"]["20"] == {"images": 20, "candidates": 10, "confirmed": 5}
    assert result["precision"]["100"] == {"images": 30, "candidates": 15, "confirmed": 5}
    assert result["recall"] == {"candidates": 15, "confirmed": 5}


def test_a_teacher_needs_a_dataset_that_kdaug_reads(tool: ModuleType, folder: Path) -> None:
    with pytest.raises(SystemExit, match="a teacher is for cifar10 or cifar100"):
        tool.main([str(folder), "mnist", "--teacher", "run:x"])


@pytest.mark.parametrize(("dataset", "published"), [("cifar10", 54), ("cifar100", 585), ("mnist", 15)])
def test_the_results_have_the_published_counts(dataset: str, published: int) -> None:
    """Northcutt et al. 2021, Table 1: errors confirmed by people."""
    files = sorted((ROOT / "results/label-errors").glob(f"{dataset}*.json"))
    results = [json.loads(file.read_text()) for file in files]
    assert {result["confirmed"] for result in results if result["dataset"] == dataset} == {published}
