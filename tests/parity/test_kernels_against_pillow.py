"""Every op, filter, size and argument, and plans of several steps, against Pillow, byte for byte."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from pillow_views import view_of

import kdaug
from kdaug.views.kernels import dispatch
from kdaug.views.ops import CODES, INTEGER_OPS, NAMES
from kdaug.views.plan import RESAMPLES, ViewPlan

Pixels = NDArray[np.uint8]
OPS = [name for name in NAMES if name not in ("none", "crop")]
GEOMETRIC = ["shear-x", "shear-y", "translate-x", "translate-y", "rotate"]
COUNT = 16

# Small values, ties and quarter turns, the limits of fixed point, of integers and of floats.
SPECIAL = [
    0, 1, -1, 0.5, -0.5, 1.5, 90, 180, -90, 270, 360, 45, 127.5, 128, 255, 255.5, 256, 1e-16, -1e-16, 5e-324, 32767,
    32768, -32767.5, 65535.99, 1e6, -1e6, 2**31, -(2**31), 2**32, 1e12, -1e12, 1e300, -1e300, 1.7e308, -1.7e308,
]  # fmt: skip
numbers = st.one_of(
    st.floats(-2, 2),
    st.floats(-400, 400),
    st.integers(-600, 600).map(lambda n: n / 2),
    st.integers(-40, 40).map(lambda n: float(np.nextafter(n / 2, 1000 * n - 500))),
    st.sampled_from(SPECIAL).map(float),
    st.floats(allow_nan=False, allow_infinity=False),
)


def noise(seed: int, *shape: int) -> Pixels:
    """uint8 of `shape`: full range, narrow range or two values."""
    rng = np.random.default_rng(seed)
    low, high = [(0, 255), (100, 130), (7, 8), (0, 255)][seed % 4]
    pixels = rng.integers(low, high + 1, shape, np.uint8)
    return np.where(pixels > 127, np.uint8(255), np.uint8(0)) if seed % 4 == 3 else pixels


def plan_with(op: NDArray[np.uint8], argument: NDArray[np.float64], seed: int, size: tuple[int, int]) -> ViewPlan:
    """A plan of `op` [N,S] and `argument` [N,S,4], truncated for INTEGER_OPS; random filters and fill."""
    rng = np.random.default_rng(seed)
    whole = np.isin(op, [CODES[name] for name in INTEGER_OPS])
    argument[whole] = np.clip(np.trunc(argument[whole]), -(2.0**62), 2.0**62)
    resample = rng.integers(0, 3, op.shape, np.uint8)
    return ViewPlan(op, argument, resample, rng.integers(0, 256, (*op.shape, 3), np.uint8), size, size)


def assert_equals_pillow(images: Pixels, plan: ViewPlan) -> None:
    views = kdaug.apply(images, plan, threads=1)
    for row, image in enumerate(images):
        message = f"{plan.steps(row)}, {plan.resample[row]}, fill {plan.fill[row].tolist()}, {image.shape}"
        assert_array_equal(views[row], view_of(image, plan, row), err_msg=message)


@settings(max_examples=300)
@given(
    seed=st.integers(0, 999),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    names=st.lists(st.sampled_from(OPS), min_size=COUNT, max_size=COUNT),
    given_numbers=st.lists(numbers, min_size=2 * COUNT, max_size=2 * COUNT),
)
@example(0, 1, 1, 3, OPS[:COUNT], [1.7e308, -1.7e308] * COUNT)
@example(1, 1, 7, 1, GEOMETRIC * 3 + ["flip"], [0.5, 0.25] * COUNT)
@example(2, 3, 2, 3, GEOMETRIC * 3 + ["flip"], [32767.75, -32768.0] * COUNT)
@example(2, 2, 1, 3, ["sharpness", "color", "contrast", "brightness"] * 4, [1e300, 0.0, -1e300, 0.0] * (COUNT // 2))
def test_every_op_equals_pillow(
    seed: int, height: int, width: int, channels: int, names: list[str], given_numbers: list[float]
) -> None:
    argument = np.zeros((COUNT, 1, 4))
    argument[:, 0, :2] = np.reshape(given_numbers, (COUNT, 2))
    argument[:, 0, 2:] = np.reshape(given_numbers, (COUNT, 2))[::-1]
    op = np.array([[CODES[name]] for name in names], np.uint8)
    images = noise(seed, COUNT, height, width, channels)
    assert_equals_pillow(images, plan_with(op, argument, seed, (height, width)))


@settings(max_examples=100)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    steps=st.integers(2, 6),
)
def test_plans_of_several_steps_equal_pillow(seed: int, height: int, width: int, channels: int, steps: int) -> None:
    """The buffers contain pixels of earlier steps."""
    rng = np.random.default_rng(seed)
    op = rng.integers(0, len(NAMES), (COUNT, steps), np.uint8)
    op[op == CODES["crop"]] = CODES["invert"]
    argument = rng.normal(0, rng.choice([0.5, 5, 100], (COUNT, steps, 1)), (COUNT, steps, 4))
    assert_equals_pillow(noise(seed, COUNT, height, width, channels), plan_with(op, argument, seed, (height, width)))


@pytest.mark.parametrize("resample", RESAMPLES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(224, 224), (61, 97), (97, 300), (1, 513), (300, 1)])
def test_larger_images_equal_pillow(size: tuple[int, int], channels: int, resample: str) -> None:
    angles, factors, pixels = [27.0, -90.0, 133.7, 1e-9], [0.27, -0.27, 3.0, 1e-7], [9.0, -30.5, 0.3, 1e4]
    steps = [[("rotate", angle)] for angle in angles]
    steps += [[(name, value)] for name in ("shear-x", "shear-y") for value in factors]
    steps += [[(name, value)] for name in ("translate-x", "translate-y") for value in pixels]
    if resample == "nearest":
        steps += [[(name,)] for name in ("autocontrast", "invert", "equalize", "flip")]
        steps += [[(name, 1.72)] for name in ("contrast", "color", "brightness", "sharpness")]
        steps += [[("solarize", 99.0)], [("posterize", 3)], [("solarize-add", 55.5)], [("erase", (3, -1, 50, 20))]]
    plan = kdaug.plan_of(steps, size, (1, 100, 200), resample)
    assert_equals_pillow(noise(4, len(steps), *size, channels), plan)


@given(
    seed=st.integers(0, 99),
    channels=st.sampled_from([1, 3]),
    windows=st.lists(
        st.tuples(st.integers(-12, 12), st.integers(-12, 12), st.integers(1, 20), st.integers(1, 20)),
        min_size=1,
        max_size=4,
    ),
)
def test_several_crops_equal_pillow(seed: int, channels: int, windows: list[tuple[int, ...]]) -> None:
    steps = [step for window in windows for step in [("crop", window), ("sharpness", 1.5), ("rotate", 30.0)]]
    plan = kdaug.plan_of([steps], (9, 11), fill=77)
    assert_equals_pillow(noise(seed, 1, 9, 11, channels), plan)


def test_an_image_cropped_to_size_0_becomes_the_fill() -> None:
    plan = kdaug.plan_of(
        [[("crop", (0, 0, 0, 5)), ("equalize",), ("rotate", 5.0), ("crop", (-2, 0, 4, 4))]], (9, 11), 7
    )
    assert (kdaug.apply(noise(0, 1, 9, 11, 3), plan) == 7).all()


@pytest.mark.parametrize("threads", [1, 2, 3, 100])
def test_threads_and_batch_split_do_not_change_a_byte(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_MIN_CHUNK_BYTES", 1)  # otherwise so few bytes get one thread
    images = noise(0, 37, 20, 24, 3)
    plan = kdaug.create_policy("randaugment-n3-m9@tf-efficientnet").plan(1, 2, np.arange(37), (20, 24))
    batch = kdaug.apply(images, plan, threads)
    cuts = [0, 1, 5, 30, 37]
    parts = [kdaug.apply(images[a:b], plan[a:b], threads) for a, b in pairwise(cuts)]
    assert_array_equal(np.concatenate(parts), batch)
    assert_equals_pillow(images, plan)
