"""The Python examples of docs/export.md run as written and find the class that the run finds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.exports import needs_onnx

from kdaug.data.crops import CenterCrop
from kdaug.data.decode import decode
from kdaug.export import export_model
from kdaug.export.source import load_source

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("library", "to", "inside"),
    [pytest.param("onnxruntime", "onnx", True, marks=needs_onnx), ("torch", "torch-export", False)],
)
def test_an_example_predicts_as_the_run(
    photo_run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    library: str, to: str, inside: bool,
) -> None:  # fmt: skip
    """For a photo of each class."""
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    (example,) = (code for code in re.findall(r"```python\n(.*?)```", text, re.S) if f"import {library}\n" in code)
    name = re.search(r'"(a\.\w+)"', example)[1]
    export_model(photo_run, to, tmp_path / name, with_preprocessing=inside)
    source = load_source(photo_run, "last")
    monkeypatch.chdir(tmp_path)
    for file in (folder / "03.jpg" for folder in sorted(photos.iterdir())):
        Image.open(file).save("photo.jpg", quality=95)
        capsys.readouterr()
        exec(example, {})
        pixels = decode(tmp_path / "photo.jpg", CenterCrop(32), 0, 0)
        (best,) = source.predict(torch.from_numpy(pixels.copy())[None]).argmax(1).tolist()
        assert capsys.readouterr().out == f"{source.info.classes[best]}\n"
