"""Policies of sub-policies: published tables, distributions, arguments."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torchvision.transforms.autoaugment as tv_auto
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image, ImageDraw
from support.chi_square import assert_frequencies, assert_uniform

from kdaug import apply, create_policy
from kdaug.rng import Stream, integers_below, random_words, uniform
from kdaug.views.ops import CODES
from kdaug.views.policies import SubPolicies

SIZE = (32, 32)


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
def test_the_number_of_sub_policies_is_the_published_one(spec: str, count: int) -> None:
    policy = create_policy(spec)
    assert isinstance(policy, SubPolicies)
    assert len(policy.sub_policies) == count
    assert {len(steps) for steps in policy.sub_policies} == {2}


@pytest.mark.parametrize(
    ("spec", "theirs"),
    [("autoaugment-cifar10", "CIFAR10"), ("autoaugment-svhn", "SVHN"), ("autoaugment-imagenet-paper", "IMAGENET")],
)
def test_sub_policies_equal_torchvisions(spec: str, theirs: str) -> None:
    """Torchvision has no level for ops without argument."""
    policy = create_policy(spec)
    assert isinstance(policy, SubPolicies)
    published = tv_auto.AutoAugment(tv_auto.AutoAugmentPolicy[theirs]).policies
    for ours, (first, second) in zip(policy.sub_policies, published, strict=True):
        for (op, probability, level), (name, p, magnitude) in zip(ours, (first, second), strict=True):
            assert op.replace("-", "") == name.lower()
            assert probability == p
            assert magnitude is None or level == magnitude


@pytest.mark.parametrize("spec", ["autoaugment-cifar10", "autoaugment-imagenet", "fast-autoaugment-svhn"])
def test_steps_are_drawn_with_their_probabilities(spec: str) -> None:
    """Each step of each sub-policy gets its own level, which identifies it in the plan."""
    policy = create_policy(spec)
    assert isinstance(policy, SubPolicies)
    count = len(policy.sub_policies)
    marked = tuple(
        tuple(("rotate", p, (2 * row + step + 1) / 100) for step, (_, p, _) in enumerate(steps))
        for row, steps in enumerate(policy.sub_policies)
    )
    draws = 400 * count
    plan = SubPolicies("marked", "tf-efficientnet", marked).plan(3, 1, np.arange(draws), SIZE)
    step = np.rint(np.abs(plan.argument[..., 0]) / 3 * 100).astype(int) - 1  # -1: not applied
    applied = plan.op > 0
    assert_array_equal(applied, step >= 0)
    assert (step[applied] % 2 == np.broadcast_to([0, 1], step.shape)[applied]).all()
    counts = np.bincount(step[applied], minlength=2 * count)
    probability = np.array([p for steps in policy.sub_policies for _, p, _ in steps])
    assert (counts[probability == 0] == 0).all()
    enough = probability * 400 >= 20
    assert_allclose(counts[enough], 400 * probability[enough], atol=6 * 20)
    both = applied.all(axis=1)
    assert (step[both, 0] // 2 == step[both, 1] // 2).all(), "two steps of one sub-policy"
    # the frequencies of none, one or both steps being applied show whether they are drawn independently
    p, q = probability.reshape(-1, 2).T
    expected = [((1 - p) * (1 - q)).mean(), (p * (1 - q)).mean(), ((1 - p) * q).mean(), (p * q).mean()]
    assert_frequencies(np.bincount(applied @ [1, 2], minlength=4), expected)


def test_sub_policies_are_drawn_uniformly() -> None:
    always = tuple((("rotate", 1.0, float(row + 1)), ("invert", 0.5, 0.0)) for row in range(25))
    plan = SubPolicies("always", "tf-efficientnet", always).plan(0, 0, np.arange(25000), SIZE)
    assert_uniform(np.bincount(np.rint(np.abs(plan.argument[:, 0, 0]) / 3).astype(int) - 1, minlength=25))
    assert_uniform(np.bincount(plan.op[:, 1] > 0))
    negative = plan.argument[:, 0, 0] < 0
    assert_uniform(np.bincount(negative + 2 * (plan.op[:, 1] > 0), minlength=4))


def test_imagenet_policy_uses_autoaugments_translate_const() -> None:
    plan = create_policy("autoaugment-imagenet").plan(0, 0, np.arange(5000), SIZE)
    shifts = plan.argument[plan.op == CODES["translate-y"], 0]
    assert set(np.abs(shifts)) == {0.9 * 250}


def test_another_space_changes_the_arguments_only() -> None:
    ours = create_policy("autoaugment-cifar10").plan(0, 0, np.arange(3000), SIZE)
    theirs = create_policy("autoaugment-cifar10@torchvision").plan(0, 0, np.arange(3000), SIZE)
    assert_array_equal(ours.op, theirs.op)
    rotated = ours.op == CODES["rotate"]
    assert set(np.abs(ours.argument[rotated, 0])) == {6}  # level 2 of 10, in whole degrees
    assert_allclose(np.abs(theirs.argument[rotated, 0]), 20 / 3, rtol=1e-6)  # of 9
    assert {tuple(fill) for fill in theirs.fill.reshape(-1, 3).tolist()} == {(0, 0, 0)}


def test_fast_autoaugment_cutout_equals_its_code() -> None:
    """Its arithmetic with Pillow's own rectangle, at the centers of the plan's random words."""
    size = height, width = (20, 30)
    steps = ((("cutout", 1.0, 0.05),), (("cutout", 1.0, 0.6),), (("cutout", 1.0, 1.0),))
    policy = SubPolicies("cutouts", "fast-autoaugment", steps)
    views = apply(np.full((600, *size, 3), 255, np.uint8), policy.plan(0, 0, np.arange(600), size))
    drawn = random_words(0, 0, np.arange(600), Stream.POLICY, 8)
    u, centers = uniform(drawn), Counter[int]()
    for row, view in enumerate(views):
        v = steps[int(integers_below(drawn[row, 0], 3))][0][2] * 0.2 * width
        x, y = width + (1.0 - width) * u[row, 6], height + (1.0 - height) * u[row, 7]
        left, top = int(max(0, x - v / 2.0)), int(max(0, y - v / 2.0))
        theirs = Image.new("RGB", (width, height), (255, 255, 255))
        corners = (left, top, min(width, left + v), min(height, top + v))
        ImageDraw.Draw(theirs).rectangle(corners, (125, 123, 114))
        assert_array_equal(view, np.asarray(theirs))
        centers[left] += 1
    assert len(centers) > 20


def test_sign_and_filter_of_one_step_are_independent() -> None:
    plan = SubPolicies("one", "timm", ((("rotate", 1.0, 5.0),),)).plan(0, 0, np.arange(20000), SIZE)
    assert_uniform(np.bincount((plan.argument[:, 0, 0] > 0) + 2 * (plan.resample[:, 0] - 1), minlength=4))
