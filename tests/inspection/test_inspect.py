"""Inspections: predictions against NumPy, views from their keys, the page, hostile names, bad input."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from support.browser import needs_chromium, open_on_phone
from support.images import write_noise
from support.teachers import tiny_teacher

from kdaug import InputError, apply, plan_of
from kdaug.config import Data, Network, Optimization, Recipe, Run, Supervision, Views, read_recipe, to_yaml
from kdaug.config import Teacher as TeacherSettings
from kdaug.data.images import fold_of_images
from kdaug.inspection import InspectionRequest, inspect_recipe
from kdaug.inspection.csv_file import label_errors_csv
from kdaug.inspection.design import create_design
from kdaug.inspection.keys import ViewKey, parse_key
from kdaug.inspection.making import make_view
from kdaug.inspection.measures import class_measures, op_curves, own_views, policy_curve
from kdaug.inspection.run import Inspection, likely_label_errors, predict_to_csv
from kdaug.inspection.selection import select_outliers
from kdaug.inspection.shown_soft_labels import soft_label_probs
from kdaug.inspection.table import Kind
from kdaug.networks import NetworkInfo, load_network, save_weights
from kdaug.training.context import TrainContext, build_context
from kdaug.training.resolve import read_resolved_recipe, resolve

RECIPE = Recipe(
    data=Data(train_images=100),
    views=Views(policy="randaugment-n2-m5@paper-geometric", seed=11),
    student=Network("wide_resnet10_1"),
    supervision=Supervision(k=3),
    optimization=Optimization(epochs=6, global_batch=50, precision="float32"),
    run=Run(dir="unused", device="cpu", threads=1),
)
REQUEST = InspectionRequest(images=40, views_per_image=2, magnitudes=(0, 2, 9))
HOSTILE = ("<script>alert(1)<", "a\"quoted' & more", "\u202eright to left", "</script><b>", "$\\frac{1}{0}$")


@pytest.fixture(scope="module")
def context() -> TrainContext:
    return build_context(resolve(RECIPE), Console(quiet=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inspection")


@pytest.fixture(scope="module")
def inspection(context: TrainContext, folder: Path) -> Inspection:
    return predict_to_csv(context, tiny_teacher(context), create_design(context, REQUEST), folder / "views.csv")


@pytest.fixture(scope="module")
def rows(inspection: Inspection, folder: Path) -> list[dict[str, str]]:
    with (folder / "views.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def probabilities(context: TrainContext, images: np.ndarray) -> np.ndarray:
    """The teacher's probabilities in float64, from its network."""
    x = torch.from_numpy((images / 255 - context.dataset.mean[0]) / context.dataset.std[0]).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = tiny_teacher(context).network(x.float()).double().numpy()
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def test_every_setting_has_its_views(inspection: Inspection) -> None:
    table, design = inspection.table, inspection.design
    assert design.magnitudes == (0, 2, 5, 9)
    assert design.epochs == (0, 5)
    assert (table.kind == Kind.UNAUGMENTED).sum() == 40
    assert (table.kind == Kind.POLICY).sum() == 40 * (2 + 3)
    assert (table.kind == Kind.OP).sum() == 40 * 5 * 3  # few images: each shows all five ops at three levels
    assert len(table) == design.count()
    assert inspection.unreadable == 0
    assert len(np.unique(table.top1)) > 4


def test_the_csv_reproduces_every_view_bit_for_bit(
    context: TrainContext, rows: list[dict[str, str]], inspection: Inspection
) -> None:
    """The ops in a row, applied to the image, give the pixels that its key gives; so does the policy itself."""
    images = context.dataset.train.images
    for row in rows[::23]:
        key = parse_key(row["key"])
        view = make_view(context, key)
        steps = [(name, *map(as_arguments, rest)) for name, *rest in json.loads(row["ops"])]
        again = apply(images[[key.image]], plan_of([steps], (28, 28), fill=context.dataset.fill))
        np.testing.assert_array_equal(view.pixels, again)
        if key.epoch is not None and key.magnitude == 5:
            plan = context.policy.plan(11, key.epoch, np.array([key.image]), (28, 28))
            np.testing.assert_array_equal(view.pixels, apply(images[[key.image]], plan))
        if key.op is not None:
            assert [name for name, *_ in steps] == [key.op]


def as_arguments(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def test_the_csv_has_the_predictions_for_the_views(context: TrainContext, rows: list[dict[str, str]]) -> None:
    some, classes = rows[::17], list(context.dataset.classes)
    keys = [parse_key(row["key"]) for row in some]
    of_views = probabilities(context, np.concatenate([make_view(context, key).pixels for key in keys]))
    of_images = probabilities(context, context.dataset.train.images[[key.image for key in keys]])
    for row, key, probs, unaugmented in zip(some, keys, of_views, of_images, strict=True):
        label = context.dataset.train.labels[key.image]
        assert row["label"] == classes[label]
        assert float(row["label_probability"]) == pytest.approx(probs[label], abs=1e-4)
        assert float(row["entropy"]) == pytest.approx(-(probs * np.log(probs)).sum(), abs=1e-3)
        assert row["top1"] == classes[probs.argmax()]
        assert int(row["agrees_with_unaugmented"]) == (probs.argmax() == unaugmented.argmax())
        assert int(row["label_in_top_k"]) == ((probs > probs[label]).sum() < 3)


def test_curves_and_classes_are_means_over_their_rows(
    context: TrainContext, rows: list[dict[str, str]], inspection: Inspection
) -> None:
    table, design = inspection.table, inspection.design

    def mean(column: str, **wanted: str) -> float:
        values = [float(row[column]) for row in rows if all(row[name] == value for name, value in wanted.items())]
        assert values
        return sum(values) / len(values)

    for point in policy_curve(table, design):
        wanted = {"kind": "policy", "magnitude": f"{point.level:g}"}
        assert point.measures.label_prob.value == pytest.approx(mean("label_probability", **wanted))
        assert point.measures.entropy.value == pytest.approx(mean("entropy", **wanted))
        assert point.measures.agreement.value == pytest.approx(mean("agrees_with_unaugmented", **wanted))
        assert point.measures.past.value == pytest.approx(1 - mean("label_in_top_k", **wanted))
        assert (point.measures.views, point.measures.images) == (80 if point.level == 5 else 40, 40)
    for op, points in op_curves(table, design).items():
        for point in points:
            values = [float(r["label_probability"]) for r in rows if f"op={op},level={point.level:g}" in r["key"]]
            assert point.measures.label_prob.value == pytest.approx(sum(values) / len(values))
    found = class_measures(table, design)
    assert [each.drop for each in found] == sorted((each.drop for each in found), reverse=True)
    for each in found:
        wanted = {"label": context.dataset.classes[each.label], "kind": "policy", "magnitude": "5"}
        assert each.measures.label_prob.value == pytest.approx(mean("label_probability", **wanted))
        wanted = {"label": context.dataset.classes[each.label], "kind": "unaugmented"}
        assert each.unaugmented == pytest.approx(mean("label_probability", **wanted))


def test_level_0_changes_nothing(inspection: Inspection) -> None:
    """In paper-geometric, every op at level 0 is the unaugmented image."""
    table = inspection.table
    at_0 = table[(table.kind == Kind.OP) & (table.magnitude == 0)]
    assert at_0.agrees.all()
    assert (at_0.planned_magnitude == 0).all()


def test_label_errors_csv_lists_all_likely_errors_in_order(context: TrainContext, inspection: Inspection) -> None:
    errors = likely_label_errors(inspection)
    assert errors
    rows = list(csv.DictReader(io.StringIO(label_errors_csv(context.dataset, inspection.table, errors))))
    images = inspection.table.image[inspection.table.kind == Kind.UNAUGMENTED]
    classes = context.dataset.classes
    assert [int(row["image"]) for row in rows] == [images[error.position] for error in errors]
    for row, error in zip(rows, errors, strict=True):
        assert row["label"] == classes[context.dataset.train.labels[int(row["image"])]]
        assert row["suggested"] == classes[error.suggested]
        probs = inspection.unaugmented_probs[error.position]
        assert float(row["suggested_probability"]) == pytest.approx(probs[error.suggested], rel=1e-6)
        assert float(row["label_probability"]) == pytest.approx(probs[error.label], rel=1e-6)


def test_outliers_have_the_lowest_probabilities(inspection: Inspection) -> None:
    table, design = inspection.table, inspection.design
    chosen = select_outliers(table, design, 32, without=[int(table.image[0])])
    assert table.image[0] not in table.image[chosen]
    assert list(table.label_prob[chosen]) == sorted(table.label_prob[chosen])
    own = own_views(table, design)
    chosen_own = chosen[own[chosen]]
    unaugmented = table.kind == Kind.UNAUGMENTED
    before = dict(zip(table.image[unaugmented], table.label_prob[unaugmented], strict=True))
    best = {}
    for row in np.flatnonzero(own & (table.image != table.image[0])):
        if table.label_prob[row] <= 0.9 * before[table.image[row]]:
            best[table.image[row]] = min(table.label_prob[row], best.get(table.image[row], 1))
    assert list(table.label_prob[chosen_own]) == sorted(best.values())[:16]
    assert len(set(table.image[chosen_own])) == len(chosen_own) > 3


@pytest.mark.parametrize(
    "text", ["image=3", "image=3,epoch=0", "image=3,epoch=0,magnitude=0.5", "image=3,op=shear-x,level=9"]
)
def test_keys_survive_a_round_trip(text: str) -> None:
    assert str(parse_key(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "3", "image=x", "epoch=0", "image=1,image=2", "image=1,op=rotate", "image=1,magnitude=2", "image=1,a=2"],
)
def test_other_keys_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not the key of a view"):
        parse_key(text)


def test_views_that_the_recipe_does_not_have_are_refused(context: TrainContext) -> None:
    for key, words in ((ViewKey(100), "from 0 to 99"), (ViewKey(0, 6), "from 0 to 5")):
        with pytest.raises(InputError, match=words):
            make_view(context, key)
    with pytest.raises(InputError, match="there is no op 'invert'"):
        make_view(context, ViewKey(0, op="invert", level=1.0))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Supervision(k=2, temperature=2), [0.5064804, 0.3071991, 0, 0]),
        (Supervision(k=2, temperature=2, reading="renormalized"), [0.6224593, 0.3775407, 0, 0]),
        (Supervision(divergence="hard"), [1, 0, 0, 0]),
    ],
)
def test_soft_labels_are_what_the_divergence_uses(settings: Supervision, expected: list[float]) -> None:
    logits = torch.tensor([[3.0, 2.0, 0.0, -1.0]])
    if settings.divergence == "top-k" and settings.reading != "renormalized":
        expected = [*(logits[0] / 2).softmax(0)[:2].tolist(), 0, 0]
    probs = soft_label_probs(logits, settings, torch.tensor([1]))
    assert probs[0].tolist() == pytest.approx(expected, abs=1e-5)


@dataclass
class Page(HTMLParser):
    """Tags, attributes, text and the data of the script of a page."""

    source: str
    tags: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    attributes: dict[str, dict[str, str | None]] = field(default_factory=dict)
    labeled: list[str] = field(default_factory=list)
    text: str = ""
    scripts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.urls += [v or "" for name, v in attrs if name in ("src", "srcset", "data", "action", "href")]
        self.attributes[values.get("id") or ""] = values
        self.labeled += [values["for"] or ""] if tag == "label" else []
        if tag == "script":
            self.scripts.append("")
        assert not [name for name in values if name.startswith("on")]
        assert tag != "img" or "alt" in values

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        else:
            self.text += data


@pytest.fixture
def inspect(tmp_path: Path) -> Callable[..., tuple[Page, Path]]:
    """Inspects a recipe with an untrained teacher, which is saved to a file before."""

    def run(recipe: Recipe, request: InspectionRequest) -> tuple[Page, Path]:
        context = build_context(resolve(recipe), Console(quiet=True))
        info: NetworkInfo = context.network_info
        save_weights(tiny_teacher(context).network.state_dict(), info, tmp_path / "teacher.safetensors")
        recipe = replace(recipe, teacher=TeacherSettings(source=f"file:{tmp_path / 'teacher.safetensors'}"))
        inspect_recipe(recipe, request, tmp_path / "out", Console(quiet=True))
        return Page((tmp_path / "out" / "index.html").read_text(encoding="utf-8")), tmp_path / "out"

    return run


def test_the_page_is_self_contained_and_its_controls_have_labels(inspect: Callable[..., tuple[Page, Path]]) -> None:
    page, out = inspect(RECIPE, replace(REQUEST, images=100))
    assert {path.name for path in out.iterdir()} == {"index.html", "views.csv", "label-errors.csv", "recipe.yaml"}
    assert (out / "index.html").stat().st_size < 20e6
    external = [url for url in page.urls if not url.startswith("data:image/")]
    assert external == ["https://arxiv.org/abs/1911.00068"]  # a link, which is not loaded
    assert not {"link", "iframe", "object", "embed", "base"} & set(page.tags)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page.source)[1]
    assert "default-src 'none'" in policy
    assert "'unsafe-inline'" not in policy.partition("script-src")[2]
    assert set(page.labeled) == {"label", "op", "setting", "magnitude", "most", "order"} <= set(page.attributes)
    data = json.loads(page.scripts[0])
    probs = [view["prob"] for view in data["views"]]
    assert len(probs) > 50
    assert probs == sorted(probs)
    assert {view["setting"] for view in data["views"]} == {"policy", "policy at another magnitude", "single op"}


def test_the_command_on_the_page_makes_the_picture_on_the_page(
    inspect: Callable[..., tuple[Page, Path]], kdaug: Callable, tmp_path: Path
) -> None:
    page, _ = inspect(RECIPE, REQUEST)
    for view in json.loads(page.scripts[0])["views"][::6]:
        *command, _ = shlex.split(view["command"])[1:]
        result = kdaug(*command, tmp_path / "again.png")
        assert (result.code, result.err) == (0, "")
        shown = Image.open(io.BytesIO(base64.b64decode(view["view"].partition(",")[2])))
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "again.png")), np.asarray(shown))


def photos(root: Path, size: int, policy: str, crop: str = "random-resized") -> Recipe:
    return replace(
        RECIPE,
        data=Data(name="folder", root=str(root), image_size=size, workers=0, max_unreadable=0.5),
        views=Views(policy=policy, crop=crop, seed=5),
        optimization=replace(RECIPE.optimization, global_batch=4),
        supervision=Supervision(),
    )


@pytest.mark.parametrize(
    ("policy", "size", "amount"),
    [
        ("autoaugment-cifar10", 32, InspectionRequest(images=12, magnitudes=(3, 9))),
        ("rand-m9-mstd0.5-inc1", 40, InspectionRequest(images=12, magnitudes=(1, 9))),
        ("augmix-m3-w3", 32, InspectionRequest(images=12, views_per_image=1, magnitudes=(1, 3))),
        ("trivialaugment@torchvision", 300, InspectionRequest(images=4, views_per_image=1, magnitudes=(15,))),
    ],
)
def test_photos_of_any_names_under_any_policy(
    inspect: Callable[..., tuple[Page, Path]], tmp_path: Path, policy: str, size: int, amount: InspectionRequest
) -> None:
    names = tuple(name.replace("/", "∕") for name in HOSTILE)
    root = write_noise(tmp_path / "photos", dict.fromkeys(names, 4))
    (root / names[0] / "000.png").rename(root / names[0] / "\"><img src=x onerror='alert(1)'>.png")
    (root / names[1] / "001.png").write_bytes(b"no image")
    page, out = inspect(photos(root, size, policy), amount)
    assert page.tags.count("script") == 2  # the page's own
    assert "x" not in page.urls
    assert "\u202e" not in page.source
    data = json.loads(page.scripts[0])
    assert "<script>alert(1)<" in data["names"]
    assert "</" not in page.scripts[0]
    with (out / "views.csv").open(encoding="utf-8", newline="") as file:
        assert {row["label"] for row in csv.DictReader(file)} <= set(data["names"])


def test_unreadable_images_are_left_out_and_counted(inspect: Callable[..., tuple[Page, Path]], tmp_path: Path) -> None:
    root = write_noise(tmp_path / "photos", {"a": 6, "b": 6})
    for path in sorted((root / "a").iterdir())[:3]:
        path.write_bytes(b"no image")
    recipe = photos(root, 32, RECIPE.views.policy)
    files = build_context(resolve(recipe), Console(quiet=True)).dataset.train.files
    unreadable = sum(Path(str(files[row])).stat().st_size < 9 for row in range(len(files)))
    page, out = inspect(recipe, InspectionRequest(images=50))
    assert unreadable
    assert f"{unreadable} image(s) cannot be read and were left out" in page.text
    assert not [line for line in (out / "views.csv").read_text().splitlines() if "a/000.png" in line]


def test_two_mixed_classes_name_the_partner(inspect: Callable[..., tuple[Page, Path]], tmp_path: Path) -> None:
    root = write_noise(tmp_path / "photos", {"a": 6, "b": 6})
    recipe = photos(root, 32, RECIPE.views.policy, crop="none")
    page, out = inspect(replace(recipe, views=replace(recipe.views, mixup=0.5)), InspectionRequest(images=50))
    assert "the teacher's 1 most probable classes" in " ".join(page.text.split())  # K is less than the classes
    with (out / "views.csv").open(newline="") as file:
        of_policy = [row for row in csv.DictReader(file) if row["kind"] == "policy"]
    assert {row["partner_label"] for row in of_policy} == {"a", "b"}
    assert all(0 <= float(row["own_share"]) <= 1 for row in of_policy)


@pytest.mark.parametrize(
    ("change", "request_change", "words"),
    [
        ({"teacher": TeacherSettings()}, {}, "needs a teacher, but teacher.source is none"),
        ({"views": Views(policy="none")}, {}, "policy none has no ops to inspect"),
        ({"views": Views(policy="flip,cutout-8", flip=False, crop="none")}, {}, "has no ops to inspect"),
        ({}, {"images": 0}, "images is 0"),
        ({}, {"views_per_image": 7}, "must be from 1 to 6"),
        ({}, {"magnitudes": (11,)}, "must be from 0 to 10"),
    ],
)
def test_what_cannot_be_inspected_is_one_error(
    tmp_path: Path, change: dict[str, object], request_change: dict[str, object], words: str
) -> None:
    recipe = replace(replace(RECIPE, teacher=TeacherSettings(source="file:none.safetensors")), **change)
    with pytest.raises(InputError, match=words):
        inspect_recipe(recipe, replace(REQUEST, **request_change), tmp_path / "out", Console(quiet=True))
    assert not (tmp_path / "out").exists()


def test_cross_fitted_teachers_judge_images_they_do_not_know(kdaug: Callable[..., Any], tmp_path: Path) -> None:
    """--folds trains that many teachers; the rows of each fold are its own teacher's, and the page has no warning."""
    flags = ("--images", 40, "--views-per-image", 1, "--magnitudes", 5, "--out", tmp_path / "out")
    (tmp_path / "recipe.yaml").write_text(to_yaml(replace(RECIPE, run=replace(RECIPE.run, dir=str(tmp_path / "run")))))
    result = kdaug("inspect", tmp_path / "recipe.yaml", *flags, "--folds", 2, "--optimization.epochs", 1)
    assert result.code == 0, result.err
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert "If the teacher was trained on these" not in page
    assert "The teacher was trained on images of this dataset" not in page
    teachers = sorted((tmp_path / "teachers").iterdir())
    assert len(teachers) == 2
    context = build_context(read_resolved_recipe(tmp_path / "out/recipe.yaml"), Console(quiet=True))
    fold = fold_of_images(context.dataset.train.labels, 2)
    networks = {}
    for run in teachers:
        omitted = read_recipe(run / "recipe.yaml").data.omitted_fold
        assert omitted is not None
        networks[omitted[0]] = load_network(run / "last.safetensors")
    with (tmp_path / "out/views.csv").open(encoding="utf-8", newline="") as file:
        unaugmented = [row for row in csv.DictReader(file) if row["kind"] == "unaugmented"]
    assert len(unaugmented) == 40
    for row in unaugmented:
        image, label = int(row["image"]), context.dataset.classes.index(row["label"])
        network, info = networks[fold[image]]
        pixels = torch.from_numpy(context.dataset.train.images[[image]])
        with torch.no_grad():
            prob = network.eval()(info.input_format.normalize(pixels)).double().softmax(1)[0, label]
        assert float(row["label_probability"]) == pytest.approx(float(prob), abs=1e-4)


def test_folds_need_a_teacher_that_is_trained(kdaug: Callable[..., Any], tmp_path: Path) -> None:
    result = kdaug("inspect", "demo", "--folds", 3, "--teacher.source", "run:x", "--out", tmp_path / "out")
    assert result.code == 2
    assert "--folds 3 is short for --teacher.source train --teacher.folds 3, but teacher.source is run:x" in result.err


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    recipe = replace(RECIPE, teacher=TeacherSettings(source="file:none.safetensors"))
    with pytest.raises(InputError, match="has other files"):
        inspect_recipe(recipe, REQUEST, tmp_path, Console(quiet=True))


@needs_chromium
def test_the_page_works_in_a_browser(inspect: Callable[..., tuple[Page, Path]]) -> None:
    """Opens, filters, sorts, shows pictures; see also `open_on_phone`."""
    page_data, out = inspect(RECIPE, replace(REQUEST, images=100))
    views = json.loads(page_data.scripts[0])["views"]
    with open_on_phone(out / "index.html") as page:
        assert page.locator("#views .card").count() == 24
        first_picture = page.locator("#views .card img").first
        first_picture.scroll_into_view_if_needed()  # pictures are loaded when they come into view
        assert first_picture.evaluate("async image => { await image.decode(); return image.naturalWidth; }") == 28
        page.get_by_label("Op", exact=True).select_option("cutout")
        matching = [view for view in views if "cutout" in view["ops"]]
        assert f"of {len(matching)} matching views" in page.locator("#status").inner_text()
        page.get_by_label("Sort by").select_option("highest")
        highest = max(view["prob"] for view in matching)
        assert f"{100 * highest:.0f} %" in page.locator("#views h3").first.inner_text()
        page.get_by_role("button", name="Reset").press("Enter")
        page.get_by_label("Probability at most, %").fill("1")
        few = [view for view in views if view["prob"] <= 0.01]
        assert f"of {len(few)} matching views" in page.locator("#status").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_role("button", name="Reset").press("Enter")
