"""Published policies: all of their sub-policies, drawn as often as they state; PBA's schedule; erasing and the like."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np
import pytest
import torchvision.transforms.autoaugment as tv_auto
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image, ImageDraw

from kdaug import InputError, Policy, apply, create_policy
from kdaug.config import Views
from kdaug.philox import Stream, below, uniform, words
from kdaug.views.ops import CODES, NAMES
from kdaug.views.policies import PopulationBasedAugmentation, SubPolicies, of_recipe, spec_with_magnitude
from kdaug.views.policies.spec import KNOWN

SIZE = (32, 32)
Check = Callable[[Any, Any], None]

SPECS = [
    "randaugment-n2-m9@torchvision",
    "randaugment-n2-m9@timm",
    "randaugment-n2-m5@autoaugment-cifar",
    "randaugment-n2-m0.3@fast-autoaugment",
    "randaugment-n2-m5@pba",
    "randaugment14-n2-m9@tf-efficientnet",
    "trivialaugment@torchvision",
    "trivialaugment@timm",
    "autoaugment-cifar10",
    "autoaugment-cifar10@torchvision",
    "autoaugment-cifar10@timm",
    "autoaugment-cifar10-95",
    "autoaugment-imagenet",
    "autoaugment-imagenet-paper",
    "autoaugment-svhn",
    "fast-autoaugment-cifar10",
    "fast-autoaugment-svhn",
    "fast-autoaugment-imagenet",
    "pba-cifar10",
    "pba-svhn",
    "cutout-16",
    "random-erasing-p0.5",
    "random-erasing-p0.5@torchvision",
    "autoaugment-cifar10,pad-crop-4,flip,cutout-16,random-erasing-p0.25",
]


def tables(file: str) -> dict[str, Any]:
    policies: dict[str, Any] = json.loads((resources.files("kdaug.views") / "tables" / file).read_text())["policies"]
    return policies


@pytest.mark.parametrize("spec", SPECS)
def test_a_row_depends_on_seed_epoch_and_index_alone(spec: str) -> None:
    policy = create_policy(spec, epochs=200)
    indices = np.array([7, 3, 2**40, 0, 3, 99])
    together = policy.plan(2**63 + 5, 150, indices, (24, 40))
    other = create_policy(spec, epochs=200)
    for row, index in enumerate(indices):
        alone = other.plan(2**63 + 5, 150, [index], (24, 40))
        for name in ("op", "argument", "resample", "fill"):
            assert_array_equal(getattr(together, name)[row], getattr(alone, name)[0])
    half = other.plan(2**63 + 5, 150, indices[:3], (24, 40))
    assert_array_equal(half.argument, together[:3].argument)
    images = np.random.default_rng(0).integers(0, 256, (6, 24, 40, 3), np.uint8)
    assert_array_equal(apply(images[:3], half), apply(images, together)[:3])


@pytest.mark.parametrize("spec", SPECS)
def test_plans_differ_between_seeds_epochs_and_samples(spec: str) -> None:
    policy = create_policy(spec, epochs=300)
    keys = [(0, 150, 0), (1, 150, 0), (2**32, 150, 0), (0, 151, 0), (0, 150, 100), (0, 150, 2**32)]
    plans = [policy.plan(seed, epoch, np.arange(50) + start, SIZE) for seed, epoch, start in keys]
    assert len({plan.op.tobytes() + plan.argument.tobytes() for plan in plans}) == len(keys)


def test_every_listed_specification_is_one() -> None:
    for spec in KNOWN:
        if not spec.startswith("file:"):
            create_policy(spec, epochs=10).plan(0, 0, [0], SIZE)


# Sub-policies


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ("autoaugment-cifar10", 25),
        ("autoaugment-cifar10-95", 95),
        ("autoaugment-imagenet", 25),
        ("autoaugment-imagenet-paper", 25),
        ("autoaugment-svhn", 25),
        ("fast-autoaugment-cifar10", 493),
        ("fast-autoaugment-svhn", 497),
        ("fast-autoaugment-imagenet", 498),
    ],
)
def test_there_are_as_many_sub_policies_as_published(spec: str, count: int) -> None:
    policy = create_policy(spec)
    assert isinstance(policy, SubPolicies)
    assert len(policy.sub_policies) == count
    assert {len(steps) for steps in policy.sub_policies} == {2}


@pytest.mark.parametrize(
    ("spec", "theirs"),
    [
        ("autoaugment-cifar10", "CIFAR10"),
        ("autoaugment-svhn", "SVHN"),
        ("autoaugment-imagenet-paper", "IMAGENET"),
    ],
)
def test_sub_policies_are_those_of_torchvision(spec: str, theirs: str) -> None:
    """Torchvision gives no level where there is none to give."""
    policy = create_policy(spec)
    assert isinstance(policy, SubPolicies)
    published = tv_auto.AutoAugment(tv_auto.AutoAugmentPolicy[theirs]).policies
    for ours, (first, second) in zip(policy.sub_policies, published, strict=True):
        for (op, probability, level), (name, p, magnitude) in zip(ours, (first, second), strict=True):
            assert op.replace("-", "") == name.lower()
            assert probability == p
            assert magnitude is None or level == magnitude


@pytest.mark.parametrize("spec", ["autoaugment-cifar10", "autoaugment-imagenet", "fast-autoaugment-svhn"])
def test_sub_policies_and_their_steps_are_drawn_as_often_as_stated(spec: str, assert_frequencies: Check) -> None:
    """Told apart by giving each step of each sub-policy a level of its own."""
    policy = create_policy(spec)
    assert isinstance(policy, SubPolicies)
    count = len(policy.sub_policies)
    marked = tuple(
        tuple(("rotate", p, (2 * row + step + 1) / 100) for step, (_, p, _) in enumerate(steps))
        for row, steps in enumerate(policy.sub_policies)
    )
    draws = 400 * count
    plan = SubPolicies("marked", "tf-efficientnet", marked).plan(3, 1, np.arange(draws), SIZE)
    step = np.rint(np.abs(plan.argument[..., 0]) / 3 * 100).astype(int) - 1  # -1: left out
    applied = plan.op > 0
    assert_array_equal(applied, step >= 0)
    assert (step[applied] % 2 == np.broadcast_to([0, 1], step.shape)[applied]).all()
    seen = np.bincount(step[applied], minlength=2 * count)
    wanted = np.array([p for steps in policy.sub_policies for _, p, _ in steps])
    assert (seen[wanted == 0] == 0).all()
    enough = wanted * 400 >= 20
    assert_allclose(seen[enough], 400 * wanted[enough], atol=6 * 20)
    both = applied.all(axis=1)
    assert (step[both, 0] // 2 == step[both, 1] // 2).all(), "two steps of one sub-policy"
    # How often both, one or none of the steps are applied tells whether they are drawn independently.
    p, q = wanted.reshape(-1, 2).T
    shares = [((1 - p) * (1 - q)).mean(), (p * (1 - q)).mean(), ((1 - p) * q).mean(), (p * q).mean()]
    assert_frequencies(np.bincount(applied @ [1, 2], minlength=4), shares)


def test_sub_policies_are_drawn_uniformly(assert_uniform: Callable[[Any], None]) -> None:
    always = tuple((("rotate", 1.0, float(row + 1)), ("invert", 0.5, 0.0)) for row in range(25))
    plan = SubPolicies("always", "tf-efficientnet", always).plan(0, 0, np.arange(25000), SIZE)
    assert_uniform(np.bincount(np.rint(np.abs(plan.argument[:, 0, 0]) / 3).astype(int) - 1, minlength=25))
    assert_uniform(np.bincount(plan.op[:, 1] > 0))
    negative = plan.argument[:, 0, 0] < 0
    assert_uniform(np.bincount(negative + 2 * (plan.op[:, 1] > 0), minlength=4))


def test_the_imagenet_policy_reads_shifts_with_autoaugments_constant() -> None:
    plan = create_policy("autoaugment-imagenet").plan(0, 0, np.arange(5000), SIZE)
    shifts = plan.argument[plan.op == CODES["translate-y"], 0]
    assert set(np.abs(shifts)) == {0.9 * 250}


def test_another_space_reads_the_same_sub_policies_its_own_way() -> None:
    ours = create_policy("autoaugment-cifar10").plan(0, 0, np.arange(3000), SIZE)
    theirs = create_policy("autoaugment-cifar10@torchvision").plan(0, 0, np.arange(3000), SIZE)
    assert_array_equal(ours.op, theirs.op)
    rotated = ours.op == CODES["rotate"]
    assert set(np.abs(ours.argument[rotated, 0])) == {6}  # level 2 of 10, in whole degrees
    assert_allclose(np.abs(theirs.argument[rotated, 0]), 20 / 3, rtol=1e-6)  # of 9
    assert {tuple(fill) for fill in theirs.fill.reshape(-1, 3).tolist()} == {(0, 0, 0)}


# PBA


def test_the_pba_schedules_are_whole() -> None:
    for name, epochs, segments in [("pba-cifar10", 200, 17), ("pba-svhn", 160, 14)]:
        schedule = tables("pba.json")[name]
        assert schedule["search_epochs"] == epochs == sum(length for length, _ in schedule["segments"])
        assert len(schedule["segments"]) == segments
        assert {len(entries) for _, entries in schedule["segments"]} == {30}


@pytest.mark.parametrize("name", ["pba-cifar10", "pba-svhn"])
@pytest.mark.parametrize("epochs", [1, 3, 90, 160, 200, 270, 1800])
def test_pba_segments_scale_with_the_run_and_the_last_takes_the_rest(name: str, epochs: int) -> None:
    schedule = tables("pba.json")[name]
    wanted: list[int] = []
    for segment, (length, _) in enumerate(schedule["segments"]):
        wanted += [segment] * int(length * epochs / schedule["search_epochs"])
    last = len(schedule["segments"]) - 1
    wanted += [last] * (epochs - len(wanted))
    policy = create_policy(name, epochs=epochs)
    assert isinstance(policy, PopulationBasedAugmentation)
    assert [policy.segment_of(epoch) for epoch in range(epochs)] == wanted
    assert policy.segment_of(epochs + 5) == last


def test_pba_applies_what_a_walk_through_the_shuffled_entries_applies(assert_frequencies: Check) -> None:
    """The published procedure, done here with NumPy's generator, against ours: counts, ops and pairs of ops."""
    ops = json.loads((resources.files("kdaug.views") / "tables" / "pba.json").read_text())["ops"] * 2
    entries = tables("pba.json")["pba-cifar10"]["segments"][-1][1]
    chances = [tenths / 10 for tenths, _ in entries]
    generator, trials = np.random.default_rng(0), 30000
    walked: Counter[tuple[str, ...]] = Counter()
    counts = generator.choice(3, trials, p=[0.2, 0.3, 0.5])
    orders = generator.random((trials, 30)).argsort(axis=1)
    successes = generator.random((trials, 30)) < np.array(chances)[orders]
    for count, order, success in zip(counts, orders, successes, strict=True):
        walked[tuple(ops[entry] for entry in order[success][:count])] += 1
    plan = create_policy("pba-cifar10", epochs=200).plan(0, 199, np.arange(trials), SIZE)
    ours = Counter(tuple(NAMES[code] for code in row if code) for row in plan.op)
    assert_frequencies([sum(n for key, n in ours.items() if len(key) == k) for k in range(3)], [0.2, 0.3, 0.5])
    frequent = [key for key, n in walked.items() if n >= 60]
    seen, expected = np.array([[ours[key], walked[key]] for key in frequent]).T
    z = (seen - expected) / np.sqrt(seen + expected)
    assert np.abs(z).max() < 5
    assert (z**2).mean() < 1.3
    assert set(ours) - set(walked) == {key for key in ours if key not in walked and ours[key] < 40}


def test_pba_starts_without_augmentation_and_its_first_entry_starts_the_second_segment() -> None:
    policy = create_policy("pba-cifar10", epochs=200)
    assert not policy.plan(0, 11, np.arange(500), SIZE).op.any()
    assert policy.plan(0, 12, np.arange(500), SIZE).op.any()
    assert not create_policy("pba-cifar10", epochs=400).plan(0, 23, np.arange(500), SIZE).op.any()


def test_pba_without_the_runs_epochs_is_refused_with_what_to_say() -> None:
    with pytest.raises(
        InputError, match=r"pba-cifar10 follows the epoch; say .* create_policy\('pba-cifar10', epochs=200\)"
    ):
        create_policy("pba-cifar10")
    with pytest.raises(InputError, match="epochs is 0, but must be at least 1"):
        create_policy("pba-svhn", epochs=0)


# RandAugment and TrivialAugment in the other spaces


def test_timm_applies_half_of_the_drawn_ops_with_either_filter(assert_uniform: Callable[[Any], None]) -> None:
    plan = create_policy("randaugment-n2-m9@timm").plan(0, 0, np.arange(20000), SIZE)
    applied = plan.op > 0
    assert_uniform(np.bincount(applied @ [1, 2], minlength=4))
    assert_uniform(np.bincount(plan.op[applied], minlength=20)[sorted(set(plan.op[applied]))])
    assert_uniform(np.bincount((plan.resample - 1) @ [1, 2], minlength=4))
    assert_uniform(np.bincount(plan.resample[applied] - 1))
    assert not plan.argument[~applied].any()


def test_torchvisions_ops_are_drawn_uniformly_doing_nothing_among_them(assert_uniform: Callable[[Any], None]) -> None:
    plan = create_policy("randaugment-n1-m9@torchvision").plan(0, 0, np.arange(14000), SIZE)
    counts = np.bincount(plan.op.ravel(), minlength=20)
    assert_uniform(counts[counts > 0])
    assert counts[0] > 0


def test_trivialaugment_draws_op_and_level_uniformly(assert_uniform: Callable[[Any], None]) -> None:
    plan = create_policy("trivialaugment@torchvision").plan(0, 0, np.arange(60000), SIZE)
    assert plan.op.shape[1] == 1
    counts = np.bincount(plan.op.ravel(), minlength=20)
    assert_uniform(counts[counts > 0])
    degrees = plan.argument[plan.op == CODES["rotate"]][:, 0]
    assert_uniform(np.bincount(np.rint(np.abs(degrees) / 135 * 30).astype(int), minlength=31))
    assert_uniform([(degrees < 0).sum(), (degrees > 0).sum()])


def test_randaugment14_has_the_ops_of_its_paper_alone() -> None:
    plan = create_policy("randaugment14-n1-m9@tf-efficientnet").plan(0, 0, np.arange(3000), SIZE)
    assert {NAMES[code] for code in plan.op.ravel()} == {
        "none", "autocontrast", "equalize", "rotate", "solarize", "color", "posterize", "contrast", "brightness",
        "sharpness", "shear-x", "shear-y", "translate-x", "translate-y",
    }  # fmt: skip


# Random erasing


@pytest.mark.parametrize(("space", "area", "ratio"), [("timm", 1 / 3, 1 / 0.3), ("torchvision", 0.33, 3.3)])
def test_erased_rectangles_have_the_published_areas_and_ratios(space: str, area: float, ratio: float) -> None:
    size = (400, 500)
    plan = create_policy(f"random-erasing-p0.25@{space}", mean=(1, 2, 3)).plan(0, 0, np.arange(20000), size)
    erased = plan.op[:, 0] > 0
    assert abs(erased.mean() - 0.25) < 0.02
    x, y, width, height = plan.argument[erased, 0].T
    shares = width * height / (400 * 500)
    assert 0.0195 < shares.min() < 0.021
    assert area - 0.01 < shares.max() < area + 0.005
    ratios = height / width
    assert 0.29 < ratios.min() < 0.32
    assert ratio * 0.95 < ratios.max() < ratio * 1.02
    assert min(x.min(), y.min()) == 0
    assert ((x + width).max(), (y + height).max()) == (500, 400)
    assert set(map(tuple, plan.fill[:, 0].tolist())) == {(1, 2, 3)}


def test_an_erased_rectangle_is_anywhere_inside_with_equal_probability(assert_uniform: Callable[[Any], None]) -> None:
    plan = create_policy("random-erasing-p1").plan(0, 0, np.arange(40000), (40, 40))
    x, _, width, _ = plan.argument[:, 0].T
    rows = (width == 10) & (plan.op[:, 0] > 0)
    assert rows.sum() > 620
    assert_uniform(np.bincount(x[rows].astype(int), minlength=31))


def test_an_image_of_one_pixel_is_left_alone() -> None:
    assert not create_policy("random-erasing-p1").plan(0, 0, np.arange(100), (1, 1)).op.any()


# Compositions and specifications that there are not


def test_a_composition_is_its_parts_in_turn() -> None:
    spec = "autoaugment-cifar10,pad-crop-4,flip,cutout-16"
    whole = create_policy(spec, mean=(1, 2, 3)).plan(1, 2, np.arange(40), SIZE)
    parts = [create_policy(part, mean=(1, 2, 3)).plan(1, 2, np.arange(40), SIZE) for part in spec.split(",")]
    assert_array_equal(whole.argument, np.concatenate([part.argument for part in parts], axis=1))
    assert_array_equal(whole.fill, np.concatenate([part.fill for part in parts], axis=1))


@pytest.mark.parametrize(
    ("spec", "options", "sentence"),
    [
        ("autoaugment-cifar100", {}, "no policy 'autoaugment-cifar100'; did you mean autoaugment-cifar10"),
        ("autoaugment-cifar10,flop", {}, "no policy 'flop'; did you mean flip"),
        ("autoaugment-cifar10,", {}, "no policy ''"),
        ("autoaugment-cifar10@torchvison", {}, "no space 'torchvison'; did you mean torchvision"),
        ("autoaugment-cifar10@fast-autoaugment", {}, "policy 1, entry 1: the level of invert is 7, but must"),
        ("autoaugment-imagenet@torchvision", {}, "no op 'solarize-add' in space torchvision-autoaugment; did you mean"),
        ("autoaugment-cifar10,randaugment-n2-m9@timm", {}, "SubPolicies and RandAugment stand together in a sequence"),
        ("flip,flip", {}, "Flip stands twice"),
        ("randaugment-n2-m11@timm", {}, r"magnitude is 11, but must be from 0 to 10 in timm \(timm clamps larger"),
        ("randaugment-n2-m9.5@torchvision", {}, "is 9.5, but must be a whole number from 0 to 30 in torchvision"),
        ("randaugment-n2-m31@torchvision", {}, "is 31, but must be a whole number from 0 to 30"),
        ("randaugment-n2-m2@fast-autoaugment", {}, "magnitude is 2, but must be from 0 to 1 in fast-autoaugment"),
        ("randaugment14-n2-m3@paper-geometric", {}, "there is no op 'autocontrast' in space paper-geometric"),
        ("trivialaugment", {}, "lacks its space; write trivialaugment@torchvision"),
        ("trivialaugment@paper-geometric", {}, "space paper-geometric does not have"),
        ("random-erasing", {}, "lacks its probability; write random-erasing-p0.25"),
        ("random-erasing-p1.5", {}, "probability is 1.5, but must be from 0 to 1"),
        ("random-erasing-p0.5@tim", {}, "no space 'tim' for it; did you mean timm"),
        ("autoaugment-cifar10", {"magnitude": 3}, "policy autoaugment-cifar10 has no magnitude"),
        ("autoaugment-cifar10", {"meen": 3}, "policy autoaugment-cifar10 has no option meen; did you mean mean"),
        ("cutout", {}, "no policy 'cutout'; did you mean cutout-16"),
        ("randaugment", {"num_ops": 2.5, "magnitude": 9, "space": "timm"}, "num_ops is 2.5, but must be a whole number"),
        ("randaugment", {"num_ops": 2, "magnitude": "x", "space": "timm"}, "magnitude is 'x', but must be a number"),
        ("pba-svhn", {"epochs": 1.5}, "epochs is 1.5, but must be a whole number"),
        ("flip", {"mean": (1, 2)}, "fill is"),
    ],
)  # fmt: skip
def test_a_specification_that_there_is_not_gets_a_hint(spec: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        create_policy(spec, **options)


def test_the_magnitude_shorthand_reaches_into_a_composition() -> None:
    spec = "randaugment14-n2-m9@tf-efficientnet,flip"
    assert spec_with_magnitude(spec, 2.5) == "randaugment14-n2-m2.5@tf-efficientnet,flip"
    with pytest.raises(InputError, match="but policy autoaugment-cifar10,flip has no magnitude"):
        spec_with_magnitude("autoaugment-cifar10,flip", 3)


def test_a_recipe_passes_its_epochs_on_and_names_the_settings_that_clash() -> None:
    policy = of_recipe(Views(policy="pba-cifar10", crop="none", flip=False), (1, 2, 3), False, epochs=400)
    assert not policy.plan(0, 23, np.arange(300), SIZE).op.any()
    assert policy.plan(0, 24, np.arange(300), SIZE).op.any()
    with pytest.raises(InputError, match="follows the epoch"):
        of_recipe(Views(policy="pba-cifar10"), (1, 2, 3), False)
    with pytest.raises(InputError, match=r"views.policy flip together with views.crop, .*: Flip stands twice"):
        of_recipe(Views(policy="flip"), (1, 2, 3), False)


def test_fast_autoaugments_cutout_is_what_its_code_draws() -> None:
    """That code's arithmetic with Pillow's own rectangle, at centres that the plan's words stand for."""
    size = height, width = (20, 30)
    steps = ((("cutout", 1.0, 0.05),), (("cutout", 1.0, 0.6),), (("cutout", 1.0, 1.0),))
    policy = SubPolicies("cutouts", "fast-autoaugment", steps)
    views = apply(np.full((600, *size, 3), 255, np.uint8), policy.plan(0, 0, np.arange(600), size))
    drawn = words(0, 0, np.arange(600), Stream.POLICY, 8)
    u, centres = uniform(drawn), Counter[int]()
    for row, view in enumerate(views):
        v = steps[int(below(drawn[row, 0], 3))][0][2] * 0.2 * width
        x, y = width + (1.0 - width) * u[row, 6], height + (1.0 - height) * u[row, 7]
        left, top = int(max(0, x - v / 2.0)), int(max(0, y - v / 2.0))
        theirs = Image.new("RGB", (width, height), (255, 255, 255))
        corners = (left, top, min(width, left + v), min(height, top + v))
        ImageDraw.Draw(theirs).rectangle(corners, (125, 123, 114))
        assert_array_equal(view, np.asarray(theirs))
        centres[left] += 1
    assert len(centres) > 20


def test_options_reach_their_parts() -> None:
    by_options: list[Policy] = [
        create_policy("randaugment,flip", num_ops=1, magnitude=3, space="timm"),
        create_policy("autoaugment-cifar10", space="torchvision"),
        create_policy("random-erasing", probability=0.25, space="torchvision"),
    ]
    by_name = [
        create_policy("randaugment-n1-m3@timm,flip"),
        create_policy("autoaugment-cifar10@torchvision"),
        create_policy("random-erasing-p0.25@torchvision"),
    ]
    assert by_options == by_name
