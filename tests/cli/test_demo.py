"""kdaug demo: three runs and one self-contained page."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import itertools
import json
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from support.browser import needs_chromium, open_on_phone
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from kdaug.config import Recipe, Views, read_recipe, to_yaml
from kdaug.data import load_dataset
from kdaug.demo import DemoResult, run_demo
from kdaug.demo.page import write_page
from kdaug.networks.wide_resnet import WideResNet
from kdaug.recipes import RECIPES, named_recipe
from kdaug.runs import read_metrics
from kdaug.supervision import load_teacher
from kdaug.training import TrainResult
from kdaug.training.context import build_context
from kdaug.training.resolve import resolve

DEMO = named_recipe("demo")


def short_demo() -> Recipe:
    """The demo recipe on 256 images for one epoch."""
    return replace(
        DEMO,
        data=replace(DEMO.data, train_images=256),
        optimization=replace(DEMO.optimization, epochs=1, global_batch=64),
        run=replace(DEMO.run, device="cpu", threads=1),
    )


def short_demo_in(folder: Path) -> Recipe:
    recipe = short_demo()
    return replace(recipe, run=replace(recipe.run, dir=str(folder)))


@dataclass
class Page(HTMLParser):
    """URLs, tags and text of an HTML page."""

    text: str
    loaded: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def pictures(self) -> Iterator[np.ndarray]:
        for url in self.loaded:
            if url.startswith("data:image/png;base64,"):
                yield np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    """A short demonstration; read only."""
    return run_demo(short_demo(), tmp_path_factory.mktemp("demo"), Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def page(demonstration: DemoResult) -> Page:
    """The page of `demonstration`."""
    return Page(demonstration.page.read_text(encoding="utf-8"))


def test_three_finished_runs_a_summary_and_a_page(demonstration: DemoResult) -> None:
    out = demonstration.page.parent
    runs = {"plain", "augmented", "with-teacher"}
    assert {p.name for p in out.iterdir()} == {"index.html", "summary.json", "inspection", *runs}
    summary, seconds = json.loads((out / "summary.json").read_text()), 0.0
    assert set(summary) == {"plain", "augmented", "with_teacher", "seconds"}
    for name in ("plain", "augmented", "with_teacher"):
        run: TrainResult = getattr(demonstration, name)
        assert run.directory == out / name.replace("_", "-")
        end = read_metrics(run.directory)[-1]
        assert (end["kind"], end["top1_error"]) == ("end", summary[name])
        assert run.top1_error == summary[name]
        seconds += end["seconds"]
    assert summary["seconds"] == pytest.approx(seconds, abs=0.06)


def test_the_page_links_to_an_inspection_of_its_views(demonstration: DemoResult) -> None:
    text = demonstration.page.read_text()
    (target,) = re.findall(r'href="([^":]*/index.html)"', text)
    inspection = demonstration.page.parent / target
    assert "What augmentation does to omniglot" in inspection.read_text()
    inspected, trained = (
        read_recipe(folder / "recipe.yaml") for folder in (inspection.parent, demonstration.with_teacher.directory)
    )
    assert (inspected.views, inspected.teacher) == (trained.views, trained.teacher)


@pytest.mark.parametrize(
    ("run", "differing"),
    [
        ("plain", {"policy: none", "source: none"}),
        ("augmented", {"source: none"}),
    ],
)
def test_the_students_differ_only_in_policy_and_teacher(
    demonstration: DemoResult, run: str, differing: set[str]
) -> None:
    out = demonstration.page.parent
    lines, others = ((out / name / "recipe.yaml").read_text().splitlines() for name in (run, "with-teacher"))
    pairs = [(a.strip(), b.strip()) for a, b in zip(lines, others, strict=True) if a != b]
    assert {a for a, _ in pairs if not a.startswith("dir:")} == differing
    assert ("source: none", "source: bundled") in pairs


def test_the_page_is_self_contained(page: Page) -> None:
    assert page.loaded
    assert all(url.startswith("data:image/") or url == "inspection/index.html" for url in page.loaded)  # a link
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not re.search(r"url\(|@import", page.text)
    (curves,) = (url for url in page.loaded if url.startswith("data:image/svg+xml;base64,"))
    svg = base64.b64decode(curves.partition(",")[2]).decode()
    assert all(reference.startswith("#") for reference in re.findall(r'href="([^"]*)"', svg))


def test_the_page_has_all_errors(demonstration: DemoResult, page: Page) -> None:
    text = " ".join(" ".join(page.words).split())
    plain = demonstration.plain.top1_error
    rows = {
        "plain": demonstration.plain,
        "strong augmentation": demonstration.augmented,
        "strong augmentation and teacher": demonstration.with_teacher,
    }
    for name, run in rows.items():
        train_error = read_metrics(run.directory)[-2]["train_error"]
        assert f" {name} {train_error:.2f} % {run.top1_error:.2f} % {run.top1_error - plain:+.2f} " in text
    assert f"Error: {plain:.2f} % plain, {demonstration.augmented.top1_error:.2f} % with strong" in text


def test_the_page_has_the_teachers_error(page: Page) -> None:
    text = " ".join(" ".join(page.words).split())
    recipe = short_demo()
    teacher = load_teacher(recipe.teacher, "bundled", load_dataset(recipe.data))
    val = load_dataset(recipe.data).val
    predicted = np.concatenate([teacher(torch.from_numpy(part)).argmax(1).numpy() for part in np.split(val.images, 4)])
    error = float(re.search(r"its error is ([\d.]+) %", text)[1])
    assert error == pytest.approx(100 * (predicted != val.labels).mean(), abs=0.2)  # bfloat16
    assert "The teacher (287,074 parameters) comes with kdaug" in text


def test_the_page_has_twelve_images_with_their_views(page: Page) -> None:
    pictures = list(page.pictures())
    assert len(pictures) == 24
    images = {image.tobytes() for image in load_dataset(short_demo().data).train.images}
    assert all(picture.shape == (28, 28) for picture in pictures)
    assert all(picture.tobytes() in images for picture in pictures[0::2])
    assert sum(picture.tobytes() in images for picture in pictures[1::2]) < 4  # views are hardly ever unchanged


@needs_chromium
def test_bars_are_as_long_as_probabilities(demonstration: DemoResult) -> None:
    """Also on a phone. Every view has a bar of its label, marked as such."""
    with open_on_phone(demonstration.page) as page:
        assert page.locator("figure").count() == page.locator(".bar.label").count() == 12
        bars = page.locator(".bar").all()
        assert len(bars) >= 36
        for bar in bars:
            probability = float(bar.locator(".bar-value").inner_text().removesuffix("%")) / 100
            track, fill = bar.locator(".track").bounding_box(), bar.locator(".fill").bounding_box()
            assert track["width"] > 100
            assert fill["height"] > 5
            assert fill["width"] / track["width"] == pytest.approx(probability, abs=0.011)


def test_the_page_has_the_recipe_of_the_student(demonstration: DemoResult, page: Page) -> None:
    written = (demonstration.with_teacher.directory / "recipe.yaml").read_text()
    shown = next(words for words in page.words if words.startswith("data:\n"))
    assert shown.strip().replace("resume: true", "resume: false") == written.strip()


def test_the_second_call_trains_nothing(demonstration: DemoResult) -> None:
    out = demonstration.page.parent
    written_again = (demonstration.page, out / "summary.json")
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p not in written_again}
    texts = [path.read_text() for path in written_again]
    assert run_demo(short_demo(), out, Console(file=io.StringIO())) == demonstration
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p not in written_again} == before
    assert [path.read_text() for path in written_again] == texts


def test_an_interrupted_demo_is_resumed(
    kdaug: Callable,
    demonstration: DemoResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setitem(RECIPES, "demo", replace(RECIPES["demo"], make=short_demo))
    calls = itertools.count(1)

    def interrupt(module: nn.Module, inputs: object) -> None:
        if isinstance(module, WideResNet) and torch.is_grad_enabled() and module.training and next(calls) in (3, 10):
            signal.raise_signal(signal.SIGINT)

    handle = register_module_forward_pre_hook(interrupt)
    request.addfinalizer(handle.remove)
    for _ in range(2):
        result = kdaug("demo", "--out", tmp_path)
        assert result.code == 130
        assert result.err.splitlines()[1:] == [f"kdaug: interrupted; continue with: kdaug demo --out {tmp_path}"]
    handle.remove()
    assert kdaug("demo", "--out", tmp_path).code == 0
    for run in ("plain", "augmented", "with-teacher"):
        weights = (tmp_path / run / "last.safetensors").read_bytes()
        assert weights == (demonstration.page.parent / run / "last.safetensors").read_bytes()


def test_class_names_are_escaped(demonstration: DemoResult, tmp_path: Path) -> None:
    names = tuple(f"<script src='http://x/{n}'>&\"{n}" for n in range(242))
    directory = demonstration.with_teacher.directory
    recipe = short_demo()
    context = build_context(
        resolve(replace(recipe, run=replace(recipe.run, dir=str(directory)))), Console(file=io.StringIO())
    )
    teacher = load_teacher(recipe.teacher, "bundled", context.dataset)
    renamed = dataclasses.replace(context, dataset=replace(context.dataset, classes=names))
    write_page(replace(demonstration, page=tmp_path / "page.html"), renamed, teacher)
    page = Page((tmp_path / "page.html").read_text())
    assert "script" not in page.tags
    assert sum("<script" in words for words in page.words) >= 12 * 3
    escaped = [html.escape(name, quote=False).replace('"', "&#34;").replace("'", "&#39;") for name in names]
    assert sum(name in page.text for name in escaped) >= 12


def test_the_command_prints_errors_and_page(
    kdaug: Callable, demonstration: DemoResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "demo", replace(RECIPES["demo"], make=short_demo))
    result = kdaug("demo", "--out", demonstration.page.parent)
    assert (result.code, result.err) == (0, "")
    for run in demonstration.runs.values():
        assert f"{run.top1_error:.2f} %" in result.out
    assert f"open {demonstration.page} for curves" in result.out


def test_another_seed_needs_another_directory(
    kdaug: Callable, demonstration: DemoResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "demo", replace(RECIPES["demo"], make=short_demo))
    result = kdaug("demo", "--out", demonstration.page.parent, "--seed", 1)
    assert result.code == 2
    assert "run.seed" in result.err
    assert result.err.endswith("; choose another --out\n")


def test_all_three_runs_are_checked_before_training(
    kdaug: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "demo", replace(RECIPES["demo"], make=short_demo))
    other = tmp_path / "with-teacher"
    other.mkdir()
    (other / "recipe.yaml").write_text(to_yaml(resolve(replace(short_demo_in(other), views=Views(policy="none")))))
    result = kdaug("demo", "--out", tmp_path)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"kdaug: {other} was started with another recipe (views.policy")
    assert result.err.endswith("; choose another --out\n")
    assert list(tmp_path.iterdir()) == [other]


def test_out_must_be_a_writable_folder(kdaug: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    result = kdaug("demo", "--out", "")
    assert (result.code, result.err) == (2, "kdaug: --out is empty; give a folder, or leave it out\n")
    result = kdaug("demo", "--out", "file")
    problem = "kdaug: file is not a folder that can be written to; choose another folder\n"
    assert (result.code, result.err) == (2, problem)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
