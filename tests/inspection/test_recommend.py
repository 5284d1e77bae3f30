"""Recommendations: measures against NumPy and simulation, the rule, the command and its page, warnings, bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from support.browser import needs_chromium, open_on_phone
from support.images import write_noise
from support.teachers import tiny_teacher

from kdaug import InputError, apply
from kdaug.config import Data, Network, Optimization, Recipe, Run, Supervision, Views, from_yaml, to_yaml
from kdaug.config import Teacher as TeacherSettings
from kdaug.data.images import balanced_subset
from kdaug.inspection import Evidence, EvidenceRequest, recommend
from kdaug.inspection.evidence import MeasuredViews, forward_operations, measure_magnitudes
from kdaug.inspection.measures import Estimate
from kdaug.inspection.recommendation import choose_magnitude, describe_factors, teacher_warning
from kdaug.inspection.teacher_data import trained_on_training_images, trained_on_validation_images
from kdaug.networks import create_network, save_weights
from kdaug.supervision import Teacher, load_teacher
from kdaug.training.context import TrainContext, build_context
from kdaug.training.resolve import resolve
from kdaug.views.policies import create_policy

RECIPE = Recipe(
    data=Data(train_images=100),
    views=Views(policy="randaugment-n2-m5@paper-geometric", crop="none", flip=False, seed=11),
    student=Network("wide_resnet10_1"),
    supervision=Supervision(k=3),
    optimization=Optimization(epochs=6, global_batch=50, precision="float32"),
    run=Run(dir="unused", device="cpu", threads=1),
)
IMAGES, DRAWS = 60, 2
REQUEST = EvidenceRequest(images=IMAGES, draws=DRAWS, magnitudes=(0, 2))


@pytest.fixture(scope="module")
def context() -> TrainContext:
    return build_context(resolve(RECIPE), Console(quiet=True))


@pytest.fixture(scope="module")
def measured(context: TrainContext) -> MeasuredViews:
    return measure_magnitudes(context, tiny_teacher(context), REQUEST)


@pytest.fixture(scope="module")
def images(context: TrainContext) -> np.ndarray:
    """The rows of the validation images that are measured."""
    return balanced_subset(context.dataset.val.labels, IMAGES)


def probabilities(context: TrainContext, images: np.ndarray) -> np.ndarray:
    """The teacher's probabilities in float64, from its network."""
    x = torch.from_numpy((images / 255 - context.dataset.mean[0]) / context.dataset.std[0]).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = tiny_teacher(context).network(x.float()).double().numpy()
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def view_probabilities(context: TrainContext, magnitude: float, rows: np.ndarray) -> np.ndarray:
    """The teacher's probabilities for the views of validation images `rows`, planned and applied by the test."""
    policy = create_policy(f"randaugment-n2-m{magnitude:g}@paper-geometric", mean=context.dataset.fill)
    pixels = context.dataset.val.images[rows]
    views = [apply(pixels, policy.plan(11, epoch, rows, (28, 28))) for epoch in (0, 5)]
    return probabilities(context, np.concatenate(views))


def test_measures_are_those_of_the_validation_images_views(
    context: TrainContext, measured: MeasuredViews, images: np.ndarray
) -> None:
    assert [each.magnitude for each in measured.evidence] == [0, 2, 5]  # the recipe's own is added
    assert (measured.images, measured.draws, measured.unreadable) == (IMAGES, DRAWS, 0)
    labels = context.dataset.val.labels[images]
    unaugmented = np.tile(probabilities(context, context.dataset.val.images[images])[np.arange(IMAGES), labels], DRAWS)
    for each in measured.evidence[1:]:
        probs = view_probabilities(context, each.magnitude, images)
        label = probs[np.arange(len(probs)), np.tile(labels, DRAWS)]
        assert each.views == IMAGES * DRAWS
        assert each.past.value == pytest.approx(np.mean((probs > label[:, None]).sum(1) >= 3))
        assert each.trust.value == pytest.approx(np.minimum(1, label / unaugmented).mean(), abs=1e-3)
        held = np.sort(probs, axis=1)[:, ::-1].mean(0).cumsum()
        assert each.k == max(2, int((held < 0.95).sum()) + 1)


def test_unchanged_views_are_trusted_fully(measured: MeasuredViews) -> None:
    """At magnitude 0 of paper-geometric, without crop and flip, every view is the unaugmented image."""
    assert measured.evidence[0].trust.value == 1


def test_t_stddev_is_that_of_repeated_draws(context: TrainContext, measured: MeasuredViews, images: np.ndarray) -> None:
    """As Wang et al. compute it: the mean over classes of the deviation of the mean probability of 640 views."""
    random = np.random.default_rng(0)
    probs = view_probabilities(context, 5, images)
    means = [probs[random.integers(0, len(probs), 640)].mean(0) for _ in range(3000)]
    simulated = np.std(means, axis=0, ddof=1).mean()
    assert measured.evidence[2].t_stddev == pytest.approx(simulated, rel=0.03)


def evidence(magnitude: float, trust: float, t_stddev: float) -> Evidence:
    exact = Estimate(trust, trust, trust)
    return Evidence(magnitude, 100, exact, exact, t_stddev, 5)


def test_the_lowest_t_stddev_is_chosen_among_trusted_magnitudes() -> None:
    several = [evidence(0, 1.0, 4.0), evidence(2, 0.95, 2.0), evidence(3, 0.91, 3.0), evidence(4, 0.89, 1.0)]
    assert choose_magnitude(several) == (several[1], "")


def test_without_a_trusted_magnitude_the_mildest_is_chosen_and_the_reason_given() -> None:
    best, reason = choose_magnitude([evidence(1, 0.2, 2.0), evidence(0, 0.7, 3.0), evidence(9, 0.1, 0.0)])
    assert best.magnitude == 0
    assert "the label trust is 0.70 at best" in reason


def test_a_policy_that_shows_nothing_is_not_recommended() -> None:
    """All views are gray: nothing has a lower T. stddev, but the bundled teacher does not recognize them."""
    recipe = replace(RECIPE, data=Data(name="omniglot"), teacher=TeacherSettings(source="bundled"))
    context = build_context(resolve(recipe), Console(quiet=True))
    teacher = load_teacher(recipe.teacher, "bundled", context.dataset)
    gray = replace(context, policy=create_policy("cutout-56", mean=context.dataset.fill))
    hidden, mild = (
        measure_magnitudes(each, teacher, EvidenceRequest(20, 1, magnitudes)).evidence
        for each, magnitudes in ((gray, (5,)), (context, (0,)))
    )
    assert hidden[0].t_stddev < 1e-6 < mild[0].t_stddev
    assert choose_magnitude([mild[0], replace(hidden[0], magnitude=9)])[0].magnitude == 0


def test_the_default_number_of_views_depends_on_the_teacher(context: TrainContext) -> None:
    linear = Teacher(create_network("softmax_regression", 10, 1), context.network_info.input_format)
    assert forward_operations(context, linear) == 2 * 28 * 28 * 10
    few = replace(context, dataset=replace(context.dataset, val=context.dataset.val.subset(np.arange(500))))
    measured = measure_magnitudes(few, linear, EvidenceRequest(magnitudes=(5,)))
    assert (measured.images, measured.draws) == (500, 4)  # 2,000 views


@pytest.mark.parametrize(
    ("own", "of_teacher", "expected"),
    [
        ({}, {}, False),
        ({}, {"train_images": 500}, False),  # measured on test images
        ({"holdout": 0.2}, {"holdout": 0.2}, False),
        ({"holdout": 0.2}, {}, True),
        ({"train_images": 500, "measure_unused": True}, {}, True),
        ({"train_images": 500, "measure_unused": True}, {"train_images": 500}, False),
        ({}, {"name": "omniglot"}, None),
    ],
)
def test_teachers_that_may_know_the_validation_images(
    tmp_path: Path, own: dict[str, object], of_teacher: dict[str, object], expected: bool | None
) -> None:
    run = resolve(replace(RECIPE, data=Data(**of_teacher)))
    (tmp_path / "recipe.yaml").write_text(to_yaml(run))
    recipe = replace(RECIPE, data=Data(**own), teacher=TeacherSettings(source=f"run:{tmp_path}"))
    assert trained_on_validation_images(recipe) is expected
    assert trained_on_training_images(recipe) is (None if expected is None else True)


def test_what_is_known_about_other_teachers() -> None:
    def of(source: str, data: Data) -> bool | None:
        return trained_on_validation_images(replace(RECIPE, data=data, teacher=TeacherSettings(source=source)))

    assert of("train", Data(holdout=0.2)) is False
    assert of("file:a.safetensors", Data()) is None
    assert of("run:does-not-exist", Data()) is None
    assert of("bundled", Data(name="omniglot", train_images=1210, measure_unused=True)) is False
    assert of("bundled", Data(name="omniglot", train_images=605, measure_unused=True)) is True


@pytest.fixture
def source(tmp_path: Path, context: TrainContext) -> str:
    """A weight file of the tiny teacher, as teacher.source."""
    save_weights(tiny_teacher(context).network.state_dict(), context.network_info, tmp_path / "teacher.safetensors")
    return f"file:{tmp_path / 'teacher.safetensors'}"


def test_the_command_prints_evidence_and_flags_and_writes_a_page(kdaug: Callable, tmp_path: Path, source: str) -> None:
    (tmp_path / "recipe.yaml").write_text(to_yaml(RECIPE))
    command = ["recommend", str(tmp_path / "recipe.yaml"), "--teacher.source", source, "--images", "20", "--draws", "1"]
    result = kdaug(*command, "--magnitudes", "0", "9", "--out", str(tmp_path / "out"))
    assert result.code == 0
    assert f"page written to {tmp_path / 'out' / 'index.html'}" in result.out
    rows = [line.split(" | ")[0] for line in result.out.splitlines() if line.startswith("| ")]
    assert rows == ["| magnitude", "| ---", "| 0", "| 5", "| 9"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "default-src 'none'" in page
    assert "<script" not in page
    again = kdaug(*command, "--magnitudes", "0", "9", "--json")
    printed = json.loads(again.out)
    assert set(printed) == {"magnitude", "k", "evidence", "warnings"}
    assert [each["magnitude"] for each in printed["evidence"]] == [0, 5, 9]
    magnitude, k = printed["magnitude"], printed["k"]
    assert f"recommended: --views.magnitude {magnitude:g} --supervision.k {k}\n" in result.out
    assert f"train with magnitude {magnitude:g} and K = {k}" in page


def test_the_recommended_settings_are_flags_of_train(tmp_path: Path, source: str) -> None:
    recipe = replace(RECIPE, teacher=TeacherSettings(source=source))
    found = recommend(recipe, replace(REQUEST, images=20), Console(quiet=True))
    views = replace(recipe.views, magnitude=found.magnitude)
    resolve(from_yaml(to_yaml(replace(recipe, views=views, supervision=replace(recipe.supervision, k=found.k)))))


@needs_chromium
def test_the_page_works_in_a_browser(tmp_path: Path) -> None:
    """Names from disk are escaped, warnings are shown; see also `open_on_phone`."""
    names = ("<script>alert(1)<", "a\"quoted' & more")
    root = write_noise(
        tmp_path / "<b>photos\u202e",
        {**dict.fromkeys((f"train/{n}" for n in names), 4), **dict.fromkeys((f"val/{n}" for n in names), 4)},
    )
    (root / "val" / names[0] / "000.png").write_bytes(b"no image")
    recipe = replace(
        RECIPE,
        data=Data(name="folder", root=str(root), image_size=32, workers=0, max_unreadable=0.5),
        views=Views(policy="rand-m9-mstd0.5-inc1", crop="random-resized", seed=5),
        optimization=replace(RECIPE.optimization, global_batch=4),
    )
    context = build_context(resolve(recipe), Console(quiet=True))
    save_weights(tiny_teacher(context).network.state_dict(), context.network_info, tmp_path / "teacher.safetensors")
    recipe = replace(recipe, teacher=TeacherSettings(source=f"file:{tmp_path / 'teacher.safetensors'}"))
    found = recommend(recipe, EvidenceRequest(draws=1, magnitudes=(1, 9)), Console(quiet=True), tmp_path / "out")
    assert found.measured.unreadable == 1
    with open_on_phone(tmp_path / "out" / "index.html") as page:
        assert page.locator("h1").inner_text().startswith("<b>photos\\u202e: train with magnitude")
        assert "1 image(s) cannot be read" in page.locator(".warning").last.inner_text()
        assert page.locator("tr").count() == 3
        assert page.locator(".policy img").evaluate("image => image.naturalWidth") > 300


@pytest.mark.parametrize(
    ("change", "request_change", "words"),
    [
        ({"teacher": TeacherSettings()}, {}, "needs a teacher, but teacher.source is none"),
        ({"views": Views(policy="none")}, {}, "policy none has no magnitude"),
        ({"views": Views(policy="autoaugment-cifar10")}, {}, "policy autoaugment-cifar10 has no magnitude"),
        ({}, {"images": 1}, "images is 1, but must be at least 2"),
        ({}, {"draws": 7}, "must be from 1 to 6"),
        ({}, {"magnitudes": (11,)}, "must be from 0 to 10"),
    ],
)
def test_what_cannot_be_recommended_is_one_error(
    tmp_path: Path, source: str, change: dict[str, object], request_change: dict[str, object], words: str
) -> None:
    recipe = replace(replace(RECIPE, teacher=TeacherSettings(source=source)), **change)
    with pytest.raises(InputError, match=words):
        recommend(recipe, replace(REQUEST, **request_change), Console(quiet=True), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_numbers_are_checked_before_the_teacher_is_loaded() -> None:
    recipe = replace(RECIPE, teacher=TeacherSettings(source="file:none.safetensors"))
    with pytest.raises(InputError, match="images is 1, but"):
        recommend(recipe, EvidenceRequest(images=1), Console(quiet=True))


@pytest.mark.parametrize(("past", "weak"), [(0.5, False), (0.51, True)])
def test_a_teacher_that_does_not_know_the_labels_is_named_too_weak(past: float, weak: bool) -> None:
    estimate = Estimate(past, past, past)
    warning = teacher_warning(Evidence(3, 10, estimate, Estimate(0.95, 0.9, 1), 0.01, 5), 5)
    assert warning.startswith("the teacher is too weak") == weak
    assert ("51% of the views" in warning) == weak


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    recipe = replace(RECIPE, teacher=TeacherSettings(source="file:none.safetensors"))
    with pytest.raises(InputError, match="has other files"):
        recommend(recipe, REQUEST, Console(quiet=True), tmp_path)


def test_factors_that_hardly_differ_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "kdaug"):
        describe_factors(np.linspace(0.5, 1, 101))
        assert "median 0.75, a tenth below 0.55, a tenth above 0.95" in caplog.text
        assert "hardly differ" not in caplog.text
        describe_factors(np.linspace(0.96, 1, 101))
        assert "hardly differ" in caplog.text
