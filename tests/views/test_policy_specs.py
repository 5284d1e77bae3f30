"""Policies of all specifications: pure functions with the right distributions; invalid specifications are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from support.chi_square import assert_uniform

from kdaug import InputError, Policy, create_policy
from kdaug.config import Views
from kdaug.views.ops import CODES, NAMES
from kdaug.views.policies import policy_from_views, spec_with_magnitude
from kdaug.views.policies.spec import SPEC_DESCRIPTIONS
from kdaug.views.space_tables import RANDAUGMENT_PAPER_OPS

SIZE = (32, 32)

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
    "rand-m7-mstd0.5-inc1",
    "rand-m9-n3-mstd101-inc1-w0",
    "augmix-m3-w3",
    "cutout-16",
    "random-erasing-p0.5",
    "random-erasing-p0.5@torchvision",
    "autoaugment-cifar10,pad-crop-4,flip,cutout-16,random-erasing-p0.25",
]


@pytest.mark.parametrize("spec", SPECS)
def test_a_row_depends_on_seed_epoch_and_index_only(spec: str) -> None:
    policy = create_policy(spec, epochs=200)
    indices = np.array([7, 3, 2**40, 0, 3, 99])
    batch = policy.plan(2**63 + 5, 150, indices, (24, 40))
    other = create_policy(spec, epochs=200)
    for row, index in enumerate(indices):
        single = other.plan(2**63 + 5, 150, [index], (24, 40))
        for name in ("op", "argument", "resample", "fill"):
            assert_array_equal(getattr(batch, name)[row], getattr(single, name)[0])


@pytest.mark.parametrize("spec", SPECS)
def test_plans_differ_between_seeds_epochs_and_samples(spec: str) -> None:
    policy = create_policy(spec, epochs=300)
    keys = [(0, 150, 0), (1, 150, 0), (2**32, 150, 0), (0, 151, 0), (0, 150, 100), (0, 150, 2**32)]
    plans = [policy.plan(seed, epoch, np.arange(50) + start, SIZE) for seed, epoch, start in keys]
    assert len({plan.op.tobytes() + plan.argument.tobytes() for plan in plans}) == len(keys)


def test_every_listed_specification_is_valid() -> None:
    for spec in SPEC_DESCRIPTIONS:
        if not spec.startswith("file:"):
            create_policy(spec, epochs=10).plan(0, 0, [0], SIZE)


# RandAugment and TrivialAugment in the other spaces


def test_timm_applies_half_of_the_ops_with_either_filter() -> None:
    plan = create_policy("randaugment-n2-m9@timm").plan(0, 0, np.arange(20000), SIZE)
    applied = plan.op > 0
    assert_uniform(np.bincount(applied @ [1, 2], minlength=4))
    assert_uniform(np.bincount(plan.op[applied], minlength=20)[sorted(set(plan.op[applied]))])
    assert_uniform(np.bincount((plan.resample - 1) @ [1, 2], minlength=4))
    assert_uniform(np.bincount(plan.resample[applied] - 1))
    assert not plan.argument[~applied].any()


def test_torchvision_draws_ops_and_none_uniformly() -> None:
    plan = create_policy("randaugment-n1-m9@torchvision").plan(0, 0, np.arange(14000), SIZE)
    counts = np.bincount(plan.op.ravel(), minlength=20)
    assert_uniform(counts[counts > 0])
    assert counts[0] > 0


def test_trivialaugment_draws_op_and_level_uniformly() -> None:
    plan = create_policy("trivialaugment@torchvision").plan(0, 0, np.arange(60000), SIZE)
    assert plan.op.shape[1] == 1
    counts = np.bincount(plan.op.ravel(), minlength=20)
    assert_uniform(counts[counts > 0])
    degrees = plan.argument[plan.op == CODES["rotate"]][:, 0]
    assert_uniform(np.bincount(np.rint(np.abs(degrees) / 135 * 30).astype(int), minlength=31))
    assert_uniform([(degrees < 0).sum(), (degrees > 0).sum()])


def test_randaugment14_has_the_ops_of_its_paper() -> None:
    plan = create_policy("randaugment14-n1-m9@tf-efficientnet").plan(0, 0, np.arange(3000), SIZE)
    assert {NAMES[code] for code in plan.op.ravel()} == set(RANDAUGMENT_PAPER_OPS)


# Random erasing


@pytest.mark.parametrize(("space", "area", "ratio"), [("timm", 1 / 3, 1 / 0.3), ("torchvision", 0.33, 3.3)])
def test_erased_rectangles_have_the_published_areas_and_ratios(space: str, area: float, ratio: float) -> None:
    size = (400, 500)
    plan = create_policy(f"random-erasing-p0.25@{space}", mean=(1, 2, 3)).plan(0, 0, np.arange(20000), size)
    erased = plan.op[:, 0] > 0
    assert abs(erased.mean() - 0.25) < 0.02
    x, y, width, height = plan.argument[erased, 0].T
    areas = width * height / (400 * 500)
    assert 0.0195 < areas.min() < 0.021
    assert area - 0.01 < areas.max() < area + 0.005
    ratios = height / width
    assert 0.29 < ratios.min() < 0.32
    assert ratio * 0.95 < ratios.max() < ratio * 1.02
    assert min(x.min(), y.min()) == 0
    assert ((x + width).max(), (y + height).max()) == (500, 400)
    assert set(map(tuple, plan.fill[:, 0].tolist())) == {(1, 2, 3)}


def test_positions_of_erased_rectangles_are_uniform() -> None:
    plan = create_policy("random-erasing-p1").plan(0, 0, np.arange(40000), (40, 40))
    x, _, width, _ = plan.argument[:, 0].T
    rows = (width == 10) & (plan.op[:, 0] > 0)
    assert rows.sum() > 620
    assert_uniform(np.bincount(x[rows].astype(int), minlength=31))


def test_random_erasing_does_not_change_one_pixel() -> None:
    assert not create_policy("random-erasing-p1").plan(0, 0, np.arange(100), (1, 1)).op.any()


# Compositions and invalid specifications


def test_a_composition_concatenates_its_parts() -> None:
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
        ("autoaugment-cifar10,randaugment-n2-m9@timm", {}, "a sequence has SubPolicies and RandAugment, which"),
        ("flip,flip", {}, "a sequence has Flip and Flip, which"),
        ("randaugment-n2-m11@timm", {}, r"magnitude is 11, but must be from 0 to 10 in timm \(timm clamps larger"),
        ("randaugment-n2-m9.5@torchvision", {}, "is 9.5, but must be a whole number from 0 to 30 in torchvision"),
        ("randaugment-n2-m31@torchvision", {}, "is 31, but must be a whole number from 0 to 30"),
        ("randaugment-n2-m2@fast-autoaugment", {}, "magnitude is 2, but must be from 0 to 1 in fast-autoaugment"),
        ("randaugment14-n2-m3@paper-geometric", {}, "there is no op 'autocontrast' in space paper-geometric"),
        ("trivialaugment", {}, "has no space; write it as in trivialaugment@torchvision"),
        ("trivialaugment@paper-geometric", {}, "space paper-geometric does not have 31 levels"),
        ("random-erasing", {}, "has no probability; write it as in random-erasing-p0.25"),
        ("random-erasing-p1.5", {}, "probability is 1.5, but must be from 0 to 1"),
        ("random-erasing-p0.5@tim", {}, "there is no random-erasing space 'tim'; did you mean timm"),
        ("autoaugment-cifar10", {"magnitude": 3}, "policy autoaugment-cifar10 has no magnitude"),
        ("autoaugment-cifar10", {"meen": 3}, "policy autoaugment-cifar10 has no option meen; did you mean mean"),
        ("cutout", {}, "no policy 'cutout'; did you mean cutout-16"),
        ("rand-m9-x3", {}, "rand-m9-x3: 'x3' is not a part of it; use m#, n#, p#, mstd#, mmax#, inc#, w#, tweights"),
        ("rand-m9-", {}, "rand-m9-: '' is not a part of it"),
        ("rand-m", {}, "'m' is not a part of it"),
        ("rand-tweights1", {}, "'tweights1' is not a part of it"),
        ("rand-m9.5", {}, "m is 9.5, but must be a whole number from 0 to 1000"),
        ("rand-m9-n0", {}, "n is 0, but must be a whole number from 1 to 64"),
        ("rand-m9-w1", {}, "w is 1, but must be a whole number from 0 to 0"),
        ("rand-m9-m8", {}, "has the part m twice; remove one"),
        ("rand-t3aw", {}, "t3aw needs the ops blur and desaturate, which kdaug does not have"),
        ("rand-w0-tweights", {}, "has w0 and tweights; use one of them"),
        ("rand-n14-w0", {}, "n is 14, but w0 draws from 13 ops without replacement; use n13 or less"),
        ("rand-m9@torchvision", {}, "has a space, but the ops of timm's strings are fixed"),
        ("rand-m9", {"space": "timm"}, "policy rand has no space"),
        ("rand", {"magnitude": 7.5}, "magnitude is 7.5, but must be a whole number"),
        ("augmix-m3-inc1", {}, "'inc1' is not a part of it; use m#, w#, d#, a#, b#, mstd# "),
        ("augmix-a0", {}, "a is 0, but must be from 0.1 to 100"),
        ("rand,augmix", {}, "a sequence has TimmRandAugment and AugMix, which"),
        ("randaugment", {"num_ops": 2.5, "magnitude": 9, "space": "timm"}, "num_ops is 2.5, but must be a whole"),
        ("randaugment", {"num_ops": 2, "magnitude": "x", "space": "timm"}, "magnitude is 'x', but must be a number"),
        ("pba-svhn", {"epochs": 1.5}, "epochs is 1.5, but must be a whole number"),
        ("flip", {"mean": (1, 2)}, "fill is"),
    ],
)  # fmt: skip
def test_an_invalid_specification_is_refused_with_a_hint(spec: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        create_policy(spec, **options)


def test_spec_with_magnitude_works_in_a_composition() -> None:
    spec = "randaugment14-n2-m9@tf-efficientnet,flip"
    assert spec_with_magnitude(spec, 2.5) == "randaugment14-n2-m2.5@tf-efficientnet,flip"
    with pytest.raises(InputError, match="but policy autoaugment-cifar10,flip has no magnitude"):
        spec_with_magnitude("autoaugment-cifar10,flip", 3)


def test_policy_from_views_uses_epochs_and_names_conflicts() -> None:
    policy = policy_from_views(Views(policy="pba-cifar10", crop="none", flip=False), (1, 2, 3), False, epochs=400)
    assert not policy.plan(0, 23, np.arange(300), SIZE).op.any()
    assert policy.plan(0, 24, np.arange(300), SIZE).op.any()
    with pytest.raises(InputError, match="pba-cifar10 is a schedule over the epochs"):
        policy_from_views(Views(policy="pba-cifar10"), (1, 2, 3), False)
    with pytest.raises(InputError, match=r"views.policy flip with views.crop, .*: a sequence has Flip and Flip"):
        policy_from_views(Views(policy="flip"), (1, 2, 3), False)


def test_options_apply_to_the_parts_that_take_them() -> None:
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
