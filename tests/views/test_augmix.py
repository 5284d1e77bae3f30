"""AugMix: pixels equal those of NumPy, Pillow and timm; weights, depths, ops and levels have their distributions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm.data.auto_augment as timm_auto
import torch
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from parity.pillow_views import view_of
from PIL import Image
from scipy import stats
from support.chi_square import assert_frequencies, assert_uniform
from torchvision.transforms import AugMix as TorchvisionAugMix

from kdaug import InputError, ViewPlan, ViewTransform, apply, create_policy, plan_of
from kdaug.views.chains import ChainMix
from kdaug.views.description import describe, format_op
from kdaug.views.magnitude import planned_magnitude
from kdaug.views.ops import CODES
from kdaug.views.plan import check_plan, concat_plans

SIZE = (19, 26)
TEXTS = ["augmix-m3-w3", "augmix-m10-w1-d1-mstd0.5", "augmix-m5-w4-d2-a0.3", "augmix-m8-w3-b1"]
texts = pytest.mark.parametrize("text", TEXTS)


def pictures(count: int, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, *SIZE, channels), np.uint8)


def mix_of(plan: ViewPlan) -> ChainMix:
    assert plan.chain_mix is not None
    return plan.chain_mix


def columns(plan: ViewPlan, start: int, stop: int) -> ViewPlan:
    arrays = {name: getattr(plan, name)[:, start:stop] for name in ("op", "argument", "resample", "fill")}
    return replace(plan, **arrays, chain_mix=None)


def blend(one: NDArray[np.uint8], other: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    shape = one.shape
    images = [Image.fromarray(array[..., 0] if shape[2] == 1 else array) for array in (one, other)]
    return np.asarray(Image.blend(*images, share)).reshape(shape)


def oracle(image: NDArray[np.uint8], plan: ViewPlan, row: int) -> NDArray[np.uint8]:
    """The view of one image op by op in Pillow, with the sum of the chains in NumPy."""
    mix = mix_of(plan)
    image = view_of(image, columns(plan, 0, mix.first), row)
    starts = [mix.first + chain * mix.depth for chain in range(mix.width)]
    chains = [view_of(image, columns(plan, start, start + mix.depth), row) for start in starts]
    if mix.blend == "sequence":
        view, rest = image, np.float32(1)
        fractions = []
        for weight in (mix.weight[row] * mix.share[row])[::-1]:
            fractions.append(weight / rest)
            rest = rest * (1 - weight / rest)
        for chain, fraction in zip(chains, fractions[::-1], strict=True):
            view = blend(view, chain, float(fraction))
    else:
        total = np.zeros(image.shape, np.float32)
        for chain, weight in zip(chains, mix.weight[row], strict=True):
            total += weight * chain.astype(np.float32)
        view = blend(image, total.clip(0, 255).astype(np.uint8), float(mix.share[row]))
    return view_of(view, columns(plan, starts[-1] + mix.depth, plan.op.shape[1]), row)


@pytest.mark.parametrize("channels", [1, 3])
@texts
def test_pixels_equal_those_of_numpy_and_pillow(text: str, channels: int) -> None:
    images = pictures(30, channels)
    plan = create_policy(f"pad-crop-3,{text},flip,cutout-5").plan(3, 4, np.arange(30), SIZE)
    views = apply(images, plan)
    for row in range(30):
        assert_array_equal(views[row], oracle(images[row], plan, row), err_msg=str(plan.steps(row)))


def test_crops_before_and_after_the_chains_may_change_the_size() -> None:
    crop = plan_of([[("crop", (2, 1, 14, 11))]] * 6, SIZE)
    augmix = create_policy("augmix").plan(0, 0, np.arange(6), (11, 14))
    plan = concat_plans([crop, augmix, plan_of([[("crop", (0, 0, 5, 4))]] * 6, (11, 14))])
    images = pictures(6)
    views = apply(images, plan)
    assert views.shape == (6, 4, 5, 3)
    for row in range(6):
        assert_array_equal(views[row], oracle(images[row], plan, row))


@pytest.mark.parametrize("text", ["augmix-m3-w3", "augmix-m8-w3-b1"])
def test_pixels_equal_timms_for_the_same_draws(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = create_policy(text).plan(0, 0, np.arange(40), SIZE)
    images, mix = pictures(40), mix_of(plan)
    views = apply(images, plan)
    theirs = timm_auto.augment_and_mix_transform(text, {})

    def op_of(step: int, row: int) -> Callable[[Image.Image], Image.Image]:
        return lambda image: Image.fromarray(view_of(np.asarray(image), columns(plan, step, step + 1), row))

    def chains_of(row: int) -> Iterator[list[Any]]:
        for chain in range(mix.width):
            yield [op_of(chain * mix.depth + step, row) for step in range(mix.depth)]

    apply_theirs = theirs._apply_blended if theirs.blended else theirs._apply_basic
    for row in range(40):
        chains = chains_of(row)
        monkeypatch.setattr(timm_auto.np.random, "choice", lambda ops, depth, replace, chains=chains: next(chains))
        view = apply_theirs(Image.fromarray(images[row]), mix.weight[row], mix.share[row])
        assert_array_equal(views[row], np.asarray(view))


@pytest.mark.parametrize(("share", "weight", "expected"), [(0, 1, 10), (1, 1, 245), (0.5, 1, 127), (1, 0.5, 122)])
def test_share_and_weight_blend_the_chain_with_the_image(share: float, weight: float, expected: int) -> None:
    mix = ChainMix(0, 1, np.full((1, 1), weight, np.float32), np.full(1, share, np.float32), SIZE)
    plan = replace(plan_of([[("invert",)]], SIZE), chain_mix=mix)
    assert (apply(np.full((1, *SIZE, 3), 10, np.uint8), plan) == expected).all()


# Distributions


@pytest.mark.parametrize("alpha", [0.3, 1, 5])
def test_weights_are_dirichlet_and_shares_beta(alpha: float) -> None:
    mix = mix_of(create_policy(f"augmix-w4-a{alpha:g}").plan(0, 0, np.arange(20000), SIZE))
    assert mix.weight.dtype == mix.share.dtype == np.float32
    assert np.abs(mix.weight.sum(axis=1) - 1).max() < 1e-6
    assert stats.kstest(mix.share, stats.beta(alpha, alpha).cdf).pvalue > 1e-5
    for chain in range(4):
        assert stats.kstest(mix.weight[:, chain], stats.beta(alpha, 3 * alpha).cdf).pvalue > 1e-5
    pair = mix.weight[:, 0] + mix.weight[:, 1]
    assert stats.kstest(pair, stats.beta(2 * alpha, 2 * alpha).cdf).pvalue > 1e-5
    assert abs(np.corrcoef(mix.share, mix.weight[:, 0])[0, 1]) < 0.04


def test_the_largest_weight_is_distributed_as_torchvisions() -> None:
    mix = mix_of(create_policy("augmix-m3-w3").plan(0, 0, np.arange(20000), SIZE))
    torch.manual_seed(0)
    theirs = TorchvisionAugMix()._sample_dirichlet(torch.ones(20000, 3)).numpy()
    assert stats.ks_2samp(mix.weight.max(axis=1), theirs.max(axis=1)).pvalue > 1e-5


def test_depths_ops_and_levels_are_uniform() -> None:
    plan = create_policy("augmix-m3-w3").plan(0, 0, np.arange(20000), SIZE)
    applied = plan.op.reshape(-1, 3, 3) > 0
    depth = applied.sum(axis=2)
    assert_array_equal(applied, np.arange(3) < depth[..., None])
    assert_uniform(np.bincount((depth - 1) @ [1, 3, 9], minlength=27))  # independent in each chain
    codes, counts = np.unique(plan.op[plan.op > 0], return_counts=True)
    assert len(codes) == 13
    assert_uniform(counts)
    degrees = plan.argument[plan.op == CODES["rotate"]][:, 0]
    assert stats.kstest(np.abs(degrees), stats.uniform(0, 9).cdf).pvalue > 1e-5
    assert_frequencies([(degrees < 0).sum(), (degrees > 0).sum()], [1, 1])
    assert (create_policy("augmix-d5-w2").plan(0, 0, np.arange(50), SIZE).op > 0).all()


@texts
def test_chains_depend_on_seed_epoch_and_index_only(text: str) -> None:
    policy, indices = create_policy(text), np.array([7, 2**40, 7, 0])
    batch = mix_of(policy.plan(5, 6, indices, SIZE))
    for row, index in enumerate(indices):
        single = mix_of(policy.plan(5, 6, [index], SIZE))
        assert_array_equal(batch.weight[row], single.weight[0])
        assert batch.share[row] == single.share[0]
    others = [mix_of(policy.plan(*key, SIZE)).share[0] for key in [(5, 6, [7]), (4, 6, [7]), (5, 7, [7]), (5, 6, [8])]]
    assert len(set(others)) == 4


# Plans with chains


@texts
def test_a_plan_file_keeps_the_chains(text: str, tmp_path: Path) -> None:
    plan = create_policy(f"flip,{text},cutout-4").plan(0, 0, np.arange(8), SIZE)
    plan.save(tmp_path / "plan.npz")
    loaded = ViewPlan.load(tmp_path / "plan.npz")
    assert_array_equal(apply(pictures(8), loaded), apply(pictures(8), plan))
    assert loaded.steps(3) == plan.steps(3)
    assert mix_of(loaded).first == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"chains_share": None}, "but a plan has .*chains_share"),
        ({"format": np.array(1)}, "the format is 1, but this version of kdaug reads format 2"),
        ({"chains_share": np.full(5, np.nan, np.float32)}, "share of the plan's chains must be from 0 to 1"),
        ({"chains_share": np.ones(4, np.float32)}, r"share of the plan's chains is float32 \[4\], but .* 5 images"),
        ({"chains_weight": np.ones((5, 3))}, "weight of the plan's chains is float64"),
        ({"chains_weight": np.ones(5, np.float32)}, r"must be \[images, chains\]"),
        ({"chains_weight": np.ones((5, 4), np.float32)}, "has 9 steps, but its chains are steps 0 to 12"),
        ({"chains_layout": np.array([0, 3, 19, 26, 2])}, "chains_layout is .* but must be first, depth"),
        ({"chains_layout": np.array([1, 3, 19, 26, 0])}, "its chains are steps 1 to 10"),
        ({"chains_layout": np.array([0, 3, 18, 26, 0])}, r"but output_size is \(18, 26\)"),
    ],
)
def test_a_plan_file_with_wrong_chains_is_refused(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    path = tmp_path / "plan.npz"
    create_policy("augmix").plan(0, 0, np.arange(5), SIZE).save(path)
    with np.load(path) as stored:
        arrays = dict(stored) | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(InputError, match=sentence):
        ViewPlan.load(path)


def test_rows_of_a_plan_keep_their_chains() -> None:
    plan = create_policy("augmix").plan(0, 0, np.arange(9), SIZE)
    images = pictures(9)
    check_plan(plan[3:5])
    assert_array_equal(apply(images[3:5], plan[3:5]), apply(images, plan)[3:5])


def test_two_augmix_and_chains_by_hand_are_refused() -> None:
    plan = create_policy("augmix").plan(0, 0, np.arange(2), SIZE)
    with pytest.raises(InputError, match="the chains of one AugMix only; apply the plans one after another"):
        concat_plans([plan, plan])
    with pytest.raises(InputError, match="plan_of takes no chains of AugMix; use create_policy"):
        plan_of([plan.steps(0)], SIZE)


def test_a_transform_gives_the_views_of_the_plan() -> None:
    transform = ViewTransform("augmix-m3-w3", seed=2)
    images = pictures(4)
    expected = apply(images, create_policy("augmix-m3-w3").plan(2, 0, np.arange(4), SIZE))
    views = [np.asarray(transform(Image.fromarray(image))) for image in images]
    assert_array_equal(views, expected)


def test_ops_count_with_the_weight_of_their_chain() -> None:
    weight, share = np.array([[0.25, 0.75]], np.float32), np.array([0.5], np.float32)
    steps = [("rotate", 45.0), ("invert",), ("posterize", 4), ("flip",), ("invert",)]
    plan = replace(plan_of([steps], SIZE), chain_mix=ChainMix(0, 2, weight, share, SIZE))
    assert planned_magnitude(plan).tolist() == pytest.approx([0.5 * (0.25 * 1.5 + 0.75 * 0.5) + 1])
    (op, *_) = plan.steps(0)
    assert format_op(op) == "augmix (12% rotate 45.00 > invert, 38% posterize 4.00 > flip)"


def test_augmix_and_rand_strings_are_described() -> None:
    (part,) = describe(create_policy("flip,augmix-m3-w3"), (28, 28))
    assert part.levels == (0, 1.5, 3)
    assert part.summary.startswith("blends 3 chains of 1 to 3 ops with the image, with weights from Dirichlet(1)")
    (part,) = describe(create_policy("rand-m9-n3-p0.2-mstd2-w0"), (28, 28))
    assert (part.levels, part.space.probability) == ((7, 9, 10), 0.2)
    assert part.summary == (
        "draws 3 ops without replacement, weighted by w0; levels normal with mean 9 and standard deviation 2, clamped "
        "to 0..10"
    )
