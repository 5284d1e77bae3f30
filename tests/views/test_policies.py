"""Policies: pure functions of seed, epoch and index with the right distributions."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from support.chi_square import assert_frequencies, assert_uniform

from kdaug import InputError, Policy, ViewPlan, apply, create_policy, plan_of
from kdaug.config import Views
from kdaug.views.policies import Cutout, Flip, PadCrop, Sequential, policy_from_views, spec_with_magnitude
from kdaug.views.policies.standard import SoftCrop

SIZE = (9, 12)
MEAN = (10, 20, 30)
TPU = "randaugment-n2-m9@tf-efficientnet"

POLICIES: dict[str, Policy] = {
    "none": create_policy("none"),
    "randaugment": create_policy(TPU),
    "paper": create_policy("randaugment-n2-m5@paper-geometric"),
    "pad-crop": PadCrop(2, MEAN),
    "flip": Flip(),
    "cutout": Cutout(3, MEAN),
    "recipe": policy_from_views(Views(policy=TPU, cutout=4), MEAN, crops_while_decoding=False),
}
policies = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)


def arrays(plan: ViewPlan) -> list[NDArray[Any]]:
    return [plan.op, plan.argument, plan.resample, plan.fill]


def names(plan: ViewPlan) -> list[list[str]]:
    return [[step[0] for step in plan.steps(row)] for row in range(len(plan))]


# Pure functions


@policies
@settings(max_examples=25)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2**62), min_size=1, max_size=8))
def test_a_row_depends_on_seed_epoch_and_index_only(policy: Policy, seed: int, epoch: int, indices: list[int]) -> None:
    batch = policy.plan(seed, epoch, np.array(indices), SIZE)
    for row, index in enumerate(indices):
        for of_all, of_one in zip(arrays(batch), arrays(policy.plan(seed, epoch, [index], SIZE)), strict=True):
            assert_array_equal(of_all[row], of_one[0])


@pytest.mark.parametrize("policy", [p for p in POLICIES.values() if p != create_policy("none")], ids=[*POLICIES][1:])
def test_plans_differ_between_seeds_epochs_and_samples(policy: Policy) -> None:
    keys = [(0, 0, 0), (1, 0, 0), (2**32, 0, 0), (0, 1, 0), (0, 0, 100), (0, 0, 2**32)]
    plans = [policy.plan(seed, epoch, np.arange(50) + start, SIZE) for seed, epoch, start in keys]
    assert len({plan.op.tobytes() + plan.argument.tobytes() for plan in plans}) == len(keys)


@policies
def test_a_plan_keeps_the_size(policy: Policy) -> None:
    plan = policy.plan(0, 0, np.arange(5), SIZE)
    assert (len(plan), plan.size, plan.output_size) == (5, SIZE, SIZE)
    assert apply(np.zeros((5, *SIZE, 3), np.uint8), plan).shape == (5, *SIZE, 3)


@pytest.mark.parametrize(
    ("spec", "size", "digits"),
    [
        ("randaugment-n2-m9@tf-efficientnet", (32, 32), "4e399e07b74757d7"),
        ("randaugment-n3-m28@tf-efficientnet", (9, 12), "d77b84fd34aa4c2c"),
        ("randaugment-n2-m5@paper-geometric", (32, 32), "a963cffa2de7c602"),
        ("randaugment-n1-m2.5@paper-geometric", (9, 12), "784c87dcdaafd0bf"),
    ],
)
def test_plans_equal_those_of_earlier_versions(spec: str, size: tuple[int, int], digits: str) -> None:
    """SHA-256 of plans drawn by the first version (the last two: since tangents are rounded)."""
    plan = create_policy(spec).plan(7, 3, np.arange(5000), size)
    assert hashlib.sha256(b"".join(array.tobytes() for array in arrays(plan))).hexdigest()[:16] == digits


@pytest.mark.parametrize("toward", [-math.inf, math.inf])
def test_a_plan_does_not_depend_on_the_last_bit_of_a_tangent(toward: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy's tangent differs between processors with and without AVX-512."""
    policy, real = create_policy("randaugment-n2-m5@paper-geometric"), np.tan
    before = policy.plan(7, 3, np.arange(5000), (32, 32))
    monkeypatch.setattr(np, "tan", lambda angle: np.nextafter(real(angle), toward))
    for one, other in zip(arrays(before), arrays(policy.plan(7, 3, np.arange(5000), (32, 32))), strict=True):
        assert_array_equal(one, other)


def test_planning_does_not_use_the_global_generator() -> None:
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    POLICIES["recipe"].plan(0, 0, np.arange(50), SIZE)
    assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


# RandAugment


@pytest.mark.parametrize(("spec", "ops"), [(TPU, 16), ("randaugment-n2-m5@paper-geometric", 5)])
def test_pairs_of_ops_are_drawn_uniformly_with_replacement(spec: str, ops: int) -> None:
    pairs = Counter(map(tuple, create_policy(spec).plan(1, 2, np.arange(12000), SIZE).op.tolist()))
    assert len(pairs) == ops**2
    assert_uniform(list(pairs.values()))


@pytest.mark.parametrize("num_ops", [1, 2, 5])
def test_each_image_gets_num_ops_ops(num_ops: int) -> None:
    plan = create_policy(f"randaugment-n{num_ops}-m9@tf-efficientnet").plan(0, 0, np.arange(20), SIZE)
    assert {len(row) for row in names(plan)} == {num_ops}


def test_two_signs_of_one_image_are_independent() -> None:
    plan = create_policy(TPU).plan(0, 0, np.arange(20000), SIZE)
    signed = (plan.argument[..., 0] != 0) & np.isin(plan.op, [1, 2, 3, 4, 5])
    both = plan.argument[signed.all(axis=1), :, 0] > 0
    assert_uniform(np.bincount(both @ [1, 2], minlength=4))


# Pad-crop, flip, cutout


@pytest.mark.parametrize(("pad", "size"), [(1, (2, 3)), (4, (8, 8)), (2, (1, 1))])
def test_pad_crop_draws_all_windows_uniformly(pad: int, size: tuple[int, int]) -> None:
    count = 40 * (2 * pad + 1) ** 2
    image = np.arange(1, size[0] * size[1] + 1, dtype=np.uint8).reshape(*size, 1)
    views = apply(np.repeat(image[None], count, 0), PadCrop(pad, (0, 0, 0)).plan(5, 0, np.arange(count), size))
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    windows = [
        padded[top : top + size[0], left : left + size[1]].tobytes()
        for top in range(2 * pad + 1)
        for left in range(2 * pad + 1)
    ]
    counts = Counter(view.tobytes() for view in views)
    assert set(counts) == set(windows)
    multiplicity = Counter(windows)  # windows outside the image are equal
    assert_uniform([counts[window] / multiplicity[window] for window in multiplicity])


@pytest.mark.parametrize(("deviation", "size"), [(0.3, (32, 32)), (1.0, (20, 40))])
def test_soft_crop_has_truncated_normal_offsets(deviation: float, size: tuple[int, int]) -> None:
    plan = SoftCrop(deviation, MEAN).plan(3, 1, np.arange(20_000), size)
    for axis, side in ((0, size[1]), (1, size[0])):
        offset = plan.argument[:, 0, axis]
        assert np.abs(offset).max() < side
        normal = scipy.stats.truncnorm(-1 / deviation, 1 / deviation, scale=deviation * side)
        inner = np.arange(-side + 1, side)
        # Rounded towards zero: 0 holds all offsets from -1 to 1.
        chance = normal.cdf(np.where(inner >= 0, inner + 1, inner)) - normal.cdf(np.where(inner > 0, inner, inner - 1))
        counts = np.array([np.sum(offset == each) for each in inner])
        frequent = chance * len(offset) > 20
        assert_frequencies(counts[frequent], chance[frequent])
    assert set(map(tuple, plan.argument[:, 0, 2:].tolist())) == {(size[1], size[0])}


def test_soft_crop_shifts_the_image() -> None:
    image = np.arange(1, 49, dtype=np.uint8).reshape(1, 6, 8, 1)
    plan = SoftCrop(0.3, (0, 0, 0)).plan(0, 0, np.arange(40), (6, 8))
    for view, (left, top) in zip(apply(image.repeat(40, 0), plan), plan.argument[:, 0, :2].astype(int), strict=True):
        padded = np.pad(image[0], ((6, 6), (8, 8), (0, 0)))
        assert np.array_equal(view, padded[6 + top : 12 + top, 8 + left : 16 + left])


def test_pad_crop_fills_with_its_color() -> None:
    views = apply(np.zeros((50, 4, 4, 3), np.uint8), PadCrop(4, MEAN).plan(0, 0, np.arange(50), (4, 4)))
    assert {tuple(color) for color in views.reshape(-1, 3).tolist()} == {(0, 0, 0), MEAN}


def test_half_of_the_images_are_flipped() -> None:
    images = np.tile(np.array([1, 2, 3], np.uint8).reshape(1, 1, 3, 1), (2000, 1, 1, 1))
    firsts = apply(images, Flip().plan(0, 0, np.arange(2000), (1, 3)))[:, 0, 0, 0]
    assert_uniform([(firsts == 1).sum(), (firsts == 3).sum()])


@pytest.mark.parametrize("side", [1, 4, 5])
def test_cutout_centers_are_uniform(side: int) -> None:
    height, width = 5, 8
    count = 50 * height * width
    plan = Cutout(side, MEAN).plan(0, 0, np.arange(count), (height, width))
    views = apply(np.full((count, height, width, 1), 255, np.uint8), plan)
    expected: Counter[bytes] = Counter()
    for y in range(height):
        for x in range(width):
            hole = np.full((height, width, 1), 255, np.uint8)
            top, left = y - side // 2, x - side // 2
            hole[max(top, 0) : top + side, max(left, 0) : left + side] = MEAN[0]
            expected[hole.tobytes()] += 1
    counts = Counter(view.tobytes() for view in views)
    assert set(counts) == set(expected)
    assert_uniform([counts[hole] / expected[hole] for hole in expected])


def test_crop_flip_and_cutout_are_independent() -> None:
    """They use different random streams."""
    plan = Sequential([PadCrop(1, MEAN), Flip(), Cutout(1, MEAN)]).plan(0, 0, np.arange(9000), (3, 3))
    left, flipped, x = plan.argument[:, 0, 0] + 1, plan.op[:, 1] > 0, plan.argument[:, 2, 0]
    assert_uniform(np.bincount((left + 3 * flipped + 6 * x).astype(int), minlength=18))


# policy_from_views


@pytest.mark.parametrize(
    ("views", "cropped", "order"),
    [
        (Views(policy=TPU, crop="pad", cutout=16), False, ["?", "?", "crop", "flip", "cutout"]),
        (Views(policy=TPU, crop="pad"), False, ["?", "?", "crop", "flip"]),
        (Views(policy=TPU, crop="pad", flip=False, cutout=16), False, ["?", "?", "crop", "cutout"]),
        (Views(policy=TPU, crop="soft", cutout=16), False, ["?", "?", "crop", "flip", "cutout"]),
        (Views(policy=TPU, crop="none", cutout=16), False, ["flip", "?", "?", "cutout"]),
        (Views(policy=TPU, crop="random-resized"), True, ["flip", "?", "?"]),
        (Views(policy="none", crop="none", flip=False), False, []),
    ],
)
def test_policy_from_views_has_the_usual_order(views: Views, cropped: bool, order: list[str]) -> None:
    rows = names(policy_from_views(views, MEAN, cropped).plan(0, 0, np.arange(60), SIZE))
    unflipped = [name for name in order if name != "flip"]
    assert {len(row) for row in rows} == {len(order), len(unflipped)}
    for row in rows:
        expected = order if len(row) == len(order) else unflipped
        assert all(name in ("?", drawn) for name, drawn in zip(expected, row, strict=True))


def test_policy_from_views_uses_all_settings() -> None:
    views = Views(policy="none", crop="pad", pad=3, flip=False, cutout=6)
    plan = policy_from_views(views, MEAN, crops_while_decoding=False).plan(0, 0, np.arange(500), (8, 8))
    assert set(plan.argument[:, 0, 0]) == set(range(-3, 4))
    assert set(plan.argument[:, 1, 2]) == {6}
    views = apply(np.full((500, 8, 8, 3), 255, np.uint8), plan)
    assert {tuple(color) for color in views.reshape(-1, 3).tolist()} == {(255, 255, 255), MEAN}


def test_soft_crop_uses_the_deviation_and_the_mean() -> None:
    views = Views(policy="none", crop="soft", soft_crop_deviation=0.1, flip=False)
    plan = policy_from_views(views, MEAN, crops_while_decoding=False).plan(0, 0, np.arange(5_000), (32, 32))
    assert plan.argument[:, 0, :2].std() == pytest.approx(3.2, abs=0.5)
    made = apply(np.full((5_000, 32, 32, 3), 255, np.uint8), plan)
    assert {tuple(color) for color in made[:50].reshape(-1, 3).tolist()} == {(255, 255, 255), MEAN}


def test_policy_from_views_uses_the_mean() -> None:
    policy = policy_from_views(
        Views(policy="randaugment-n1-m9@paper-geometric", crop="none"), MEAN, crops_while_decoding=True
    )
    views = apply(np.full((50, 8, 8, 3), 255, np.uint8), policy.plan(0, 0, np.arange(50), (8, 8)))
    assert {tuple(color) for color in views.reshape(-1, 3).tolist()} == {(255, 255, 255), MEAN}


def test_random_resized_crop_needs_encoded_images() -> None:
    with pytest.raises(InputError, match=r"views\.crop random-resized needs data\.name folder"):
        policy_from_views(Views(crop="random-resized"), MEAN, crops_while_decoding=False)


def test_a_part_plans_for_the_output_size_of_the_one_before() -> None:
    class Shrink:
        def plan(self, seed: int, epoch: int, indices: Any, size: tuple[int, int]) -> ViewPlan:
            return plan_of([[("crop", (0, 0, 3, 2))]] * len(indices), size)

    plan = Sequential([Shrink(), Cutout(1, MEAN)]).plan(0, 0, np.arange(200), SIZE)
    assert (plan.size, plan.output_size) == (SIZE, (2, 3))
    assert plan.argument[:, 1, :2].max(axis=0).tolist() == [2, 1]


@pytest.mark.parametrize(
    "parts",
    [
        [Flip(), Flip()],
        [create_policy(TPU), PadCrop(1, MEAN), create_policy("randaugment-n1-m1@paper-geometric")],
        [Sequential([Flip()]), Flip()],
    ],
)
def test_two_parts_with_one_random_stream_are_refused(parts: list[Policy]) -> None:
    with pytest.raises(
        InputError, match=r"a sequence has (Flip and Flip|RandAugment and RandAugment), which would draw the same"
    ):
        Sequential(parts)


# Specifications of RandAugment


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        (TPU, {}),
        ("randaugment-n3-m28@tf-efficientnet", {"num_ops": 2, "magnitude": 9}),
        ("randaugment", {"num_ops": 2, "magnitude": 9, "space": "tf-efficientnet"}),
        ("randaugment-n2", {"magnitude": 9.0, "space": "tf-efficientnet"}),
        ("randaugment-m9.0@paper-geometric", {"num_ops": 2, "space": "tf-efficientnet"}),
        (TPU, {"num_ops": None, "magnitude": None, "space": None}),
    ],
)
def test_specification_and_options_give_the_same_policy(spec: str, options: dict[str, Any]) -> None:
    assert create_policy(spec, **options) == create_policy(
        "randaugment", num_ops=2, magnitude=9, space="tf-efficientnet"
    )


def test_options_change_the_plan() -> None:
    changed = [{}, {"num_ops": 3}, {"magnitude": 5}, {"space": "paper-geometric"}]
    plans = [create_policy(TPU, **options).plan(0, 0, np.arange(30), SIZE) for options in changed]
    assert len({plan.op.tobytes() + plan.argument.tobytes() for plan in plans}) == len(changed)


def test_policy_none_accepts_a_mean() -> None:
    assert create_policy("none", mean=MEAN) == create_policy("none")


@pytest.mark.parametrize(
    ("spec", "options", "sentence"),
    [
        (
            "randaugmnet-n2-m9@tf-efficientnet",
            {},
            "no policy 'randaugmnet-n2-m9@tf-efficientnet'; did you mean randaug",
        ),
        ("zzz", {}, "no policy 'zzz'; choose one that `kdaug views` lists"),
        ("randaugment-m9-n2@tf-efficientnet", {}, "no policy .*; did you mean randaugment-n2-m9@tf-efficientnet"),
        ("randaugment-n2-m-9@tf-efficientnet", {}, "no policy"),
        ("randaugment-n2-m9@tf-efficientnet ", {}, "no policy"),
        ("", {}, "no policy ''"),
        ("randaugment-n2-m9", {}, "has no space; write it as in randaugment-n2-m9@tf-efficientnet"),
        ("randaugment-n2@tf-efficientnet", {}, "has no magnitude; write it"),
        ("randaugment-m9@tf-efficientnet", {}, "has no num_ops; write it"),
        ("randaugment-n2-m9@tf-eficientnet", {}, "no space 'tf-eficientnet'; did you mean tf-efficientnet"),
        ("randaugment-n0-m9@tf-efficientnet", {}, "number of ops is 0, but must be from 1 to 64"),
        ("randaugment-n2-m11@paper-geometric", {}, "magnitude is 11, but must be from 0 to 10 in paper-geometric"),
        (TPU, {"magnitude": -1}, "magnitude is -1, but must be at least 0 in tf-efficientnet"),
        (TPU, {"magntude": 1}, "randaugment has no option magntude; did you mean magnitude"),
        ("none", {"magnitude": 1}, "none has no magnitude"),
    ],
)
def test_an_invalid_randaugment_is_refused_with_a_hint(spec: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        create_policy(spec, **options)


@given(st.floats(0, 10))
@example(9)
@example(1.2345678)
@example(1e-7)
def test_spec_with_magnitude_changes_only_the_magnitude(magnitude: float) -> None:
    for space in ("paper-geometric", "tf-efficientnet"):
        spec = spec_with_magnitude(f"randaugment-n3-m5@{space}", magnitude)
        assert create_policy(spec) == create_policy("randaugment", num_ops=3, magnitude=magnitude, space=space)


def test_spec_with_magnitude_writes_short_numbers() -> None:
    assert spec_with_magnitude("randaugment-n2@tf-efficientnet", 9) == TPU
    assert spec_with_magnitude(TPU, 5.0) == "randaugment-n2-m5@tf-efficientnet"
    assert spec_with_magnitude(TPU, 2.5) == "randaugment-n2-m2.5@tf-efficientnet"
    assert create_policy(spec_with_magnitude(TPU, 1e6)) == create_policy(TPU, magnitude=1e6)


@pytest.mark.parametrize(
    ("spec", "magnitude", "sentence"),
    [
        ("none", 5, "views.magnitude is 5, but policy none has no magnitude"),
        ("randaugment-n2-m5@paper-geometric", 11, "must be from 0 to 10 in paper-geometric"),
        ("randomaugment", 5, "there is no policy"),
    ],
)
def test_spec_with_magnitude_refuses_what_does_not_fit(spec: str, magnitude: float, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        spec_with_magnitude(spec, magnitude)
