"""timm's strings rand-...: parts as timm reads them; ops, levels and filters with the distributions of timm."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import timm.data.auto_augment as timm_auto
from numpy.testing import assert_array_equal
from scipy import stats
from support.chi_square import assert_frequencies, assert_uniform

from kdaug import create_policy
from kdaug.views.ops import CODES
from kdaug.views.policies import AugMix, TimmRandAugment, spec_with_magnitude
from kdaug.views.policies.timm_randaugment import CHOICE_WEIGHTS, draw_without_replacement
from kdaug.views.space_tables import SPACES

SIZE = (32, 32)


@pytest.mark.parametrize(
    "text",
    [
        "rand",
        "rand-m7-mstd0.5-inc1",
        "rand-m9-n3-mstd101-inc1",
        "rand-m9-mstd100",
        "rand-m15-n2-p0.3-mmax20-inc0",
        "rand-tweights-m9-n4",
        "rand-tweights-inc1",
    ],
)
def test_parts_of_rand_are_read_as_timm_reads_them(text: str) -> None:
    theirs = timm_auto.rand_augment_transform(text, {})
    ours = create_policy(text)
    assert isinstance(ours, TimmRandAugment)
    op = theirs.ops[0]
    assert ours.num_ops == theirs.num_layers
    assert (ours.probability, ours.magnitude, ours.noise) == (op.prob, op.magnitude, op.magnitude_std)
    assert ours.max_level == (op.magnitude_max or 10)
    assert ours.increasing == ("inc1" in text)
    assert (ours.space == "timm") == ("Posterize" in {op.name for op in theirs.ops})
    weights = {} if theirs.choice_weights is None else dict(zip(theirs.ops, theirs.choice_weights, strict=True))
    by_name = {op.name.removesuffix("Increasing").removesuffix("Rel"): weight for op, weight in weights.items()}
    total = sum(CHOICE_WEIGHTS[ours.weights].values()) if ours.weights else 1
    expected = {
        "".join(part.capitalize() for part in op.split("-")).replace("Autoc", "AutoC"): weight / total
        for op, weight in (CHOICE_WEIGHTS[ours.weights].items() if ours.weights else ())
    }
    assert by_name == pytest.approx(expected)


@pytest.mark.parametrize(
    "text", ["augmix", "augmix-m5-w4-d2", "augmix-m3-w3-a0.5-b1", "augmix-d0-mstd2", "augmix-mstd0"]
)
def test_parts_of_augmix_are_read_as_timm_reads_them(text: str) -> None:
    theirs, ours = timm_auto.augment_and_mix_transform(text, {}), create_policy(text)
    assert isinstance(ours, AugMix)
    op = theirs.ops[0]
    assert (ours.magnitude, ours.noise, op.prob) == (op.magnitude, op.magnitude_std, 1)
    assert (ours.width, ours.depth, ours.alpha) == (theirs.width, max(theirs.depth, 0), theirs.alpha)
    assert (ours.blend == "sequence") == theirs.blended


def timm_arguments(text: str, name: str, count: int) -> np.ndarray:
    """The first argument of `count` applied ops `name` of timm's policy, sign removed."""
    hparams: dict[str, Any] = {}
    transform = timm_auto.rand_augment_transform(text, hparams)
    (op,) = (op for op in transform.ops if op.name == name)
    drawn: list[float] = []
    op.prob, op.aug_fn = 1.0, lambda image, argument, **_: drawn.append(argument)
    state = random.getstate()
    random.seed(1)
    for _ in range(count):
        op(None)
    random.setstate(state)
    return np.abs(drawn)


@pytest.mark.parametrize(
    "text", ["rand-m7-mstd0.5-inc1", "rand-m9-mstd101-inc1", "rand-m9-mstd3-inc1", "rand-m15-mstd101-inc1-mmax12"]
)
def test_levels_are_distributed_as_timms(text: str) -> None:
    plan = create_policy(text).plan(0, 0, np.arange(60000), SIZE)
    for op, name in [("rotate", "Rotate"), ("solarize", "SolarizeIncreasing"), ("color", "ColorIncreasing")]:
        ours = np.abs(plan.argument[plan.op == CODES[op]][:, 0])
        theirs = timm_arguments(text, name, 4000)
        assert len(ours) > 3000
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-5, op


def test_every_op_has_its_own_level_and_sign() -> None:
    plan = create_policy("rand-m7-mstd0.5-inc1-p1").plan(0, 0, np.arange(40000), SIZE)
    both = (plan.op == CODES["rotate"]).all(axis=1)
    first, second = plan.argument[both, :, 0].T
    assert_uniform([(first < 0).sum(), (first > 0).sum()])
    assert abs(np.corrcoef(np.abs(first), np.abs(second))[0, 1]) < 0.4
    assert (np.abs(first) != np.abs(second)).all()


def test_half_of_the_ops_are_applied_each_with_either_filter() -> None:
    plan = create_policy("rand-m9-inc1").plan(0, 0, np.arange(20000), SIZE)
    assert_frequencies(np.bincount((plan.op > 0).sum(axis=1)), [0.25, 0.5, 0.25])
    assert_uniform(np.bincount(plan.op[plan.op > 0])[sorted(set(plan.op[plan.op > 0]))])
    assert len(set(plan.op[plan.op > 0])) == 15
    assert_uniform(np.bincount(plan.resample.ravel())[1:])
    assert set(plan.fill.ravel()) == {128}


def test_probability_p_is_that_of_each_op() -> None:
    plan = create_policy("rand-m9-p0.2").plan(0, 0, np.arange(10000), SIZE)
    assert_frequencies(np.bincount((plan.op > 0).sum(axis=1)), [0.64, 0.32, 0.04])
    assert not create_policy("rand-p0").plan(0, 0, np.arange(100), SIZE).op.any()


@pytest.mark.parametrize("name", CHOICE_WEIGHTS)
def test_weighted_ops_are_drawn_without_replacement(name: str) -> None:
    suffix = "w0-inc1" if name == "w0" else name
    plan = create_policy(f"rand-m9-n2-p1-{suffix}").plan(0, 0, np.arange(30000), SIZE)
    weights = np.array([CHOICE_WEIGHTS[name].get(op, 0) for op in SPACES["timm-increasing"].ops])
    p = weights / weights.sum()
    second = sum(p[i] * np.where(np.arange(15) == i, 0, p / (1 - p[i])) for i in range(15))
    for step, probability in enumerate([p, second]):
        counts = np.bincount(plan.op[:, step], minlength=20)[[CODES[op] for op in SPACES["timm-increasing"].ops]]
        assert_frequencies(counts, probability)
    assert (plan.op[:, 0] != plan.op[:, 1]).all()


def test_a_draw_without_replacement_can_draw_everything() -> None:
    words = np.random.default_rng(0).integers(0, 1 << 32, (500, 4), np.uint32)
    words[0], words[1] = 0, 0xFFFFFFFF
    drawn = draw_without_replacement(words, np.array([3, 0, 1, 1e-9, 2]))
    assert_array_equal(np.sort(drawn, axis=1), np.tile([0, 2, 3, 4], (500, 1)))


def test_w0_without_inc_keeps_the_ops_of_space_timm() -> None:
    assert create_policy("rand-w0").space == "timm"
    assert create_policy("rand-tweights").space == "timm-increasing"


def test_the_recipe_magnitude_replaces_part_m() -> None:
    assert spec_with_magnitude("flip,rand-m7-mstd0.5-inc1", 9) == "flip,rand-mstd0.5-inc1-m9"
    assert create_policy("rand-m7-mmax20", magnitude=9) == create_policy("rand-m9-mmax20")
    assert create_policy("augmix-w2", magnitude=9) == create_policy("augmix-w2-m9")
