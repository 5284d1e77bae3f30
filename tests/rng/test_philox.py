"""The generator against its published test vectors and against plain Python integers."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from support.chi_square import assert_uniform

from kdaug.errors import InputError
from kdaug.rng import Stream, integers_below, permutation, philox4x32, random_words, uniform

MASK = 0xFFFFFFFF

seeds = st.integers(0, 2**64 - 1)
epochs = st.integers(0, 2**32 - 1)
indices = st.integers(0, 2**63 - 1)
streams = st.integers(0, 2**16 - 1)


def reference_philox(counter: tuple[int, ...], key: tuple[int, int]) -> list[int]:
    (x0, x1, x2, x3), (k0, k1) = counter, key
    for _ in range(10):
        high_0, low_0 = divmod(0xD2511F53 * x0, 1 << 32)
        high_1, low_1 = divmod(0xCD9E8D57 * x2, 1 << 32)
        x0, x1, x2, x3 = high_1 ^ x1 ^ k0, low_1, high_0 ^ x3 ^ k1, low_0
        k0, k1 = (k0 + 0x9E3779B9) % (1 << 32), (k1 + 0xBB67AE85) % (1 << 32)
    return [x0, x1, x2, x3]


# Random123 (Salmon et al., SC 2011), kat_vectors, philox4x32 with 10 rounds.
@pytest.mark.parametrize(
    ("counter", "key", "result"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_equals_the_published_vectors(counter: str, key: str, result: str) -> None:
    counters, keys, expected = ([int(word, 16) for word in text.split()] for text in (counter, key, result))
    assert_array_equal(philox4x32(np.array(counters, np.uint32), (keys[0], keys[1])), np.array(expected, np.uint32))
    assert reference_philox(tuple(counters), (keys[0], keys[1])) == expected


@given(seeds, epochs, st.lists(indices, min_size=1, max_size=4), streams, st.integers(1, 13))
@example(2**64 - 1, 2**32 - 1, [2**32, 2**63 - 1, 0], 2**16 - 1, 13)
def test_words_are_philox_of_the_documented_counter(
    seed: int, epoch: int, samples: list[int], stream: int, count: int
) -> None:
    drawn = random_words(seed, epoch, np.array(samples, np.uint64), stream, count)
    assert drawn.dtype == np.uint32
    for row, index in zip(drawn, samples, strict=True):
        blocks = [
            reference_philox((block | stream << 16, epoch, index & MASK, index >> 32), (seed & MASK, seed >> 32))
            for block in range(4)
        ]
        assert row.tolist() == [word for block in blocks for word in block][:count]


@given(seeds, epochs, st.lists(indices, min_size=2, max_size=9), st.data())
def test_words_do_not_depend_on_the_batch(seed: int, epoch: int, samples: list[int], data: st.DataObject) -> None:
    one_batch = random_words(seed, epoch, samples, Stream.POLICY, 5)
    cut = data.draw(st.integers(1, len(samples) - 1))
    two_batches = [random_words(seed, epoch, part, Stream.POLICY, 5) for part in (samples[:cut], samples[cut:])]
    assert_array_equal(one_batch, np.concatenate(two_batches))


@given(seeds, indices, st.integers(0, 20), st.integers(0, 20))
@settings(max_examples=30)
def test_the_first_words_do_not_depend_on_count(seed: int, index: int, few: int, more: int) -> None:
    assert_array_equal(random_words(seed, 0, [index], 1, few + more)[:, :few], random_words(seed, 0, [index], 1, few))


def test_no_samples_give_no_words() -> None:
    assert random_words(0, 0, [], 0, 3).shape == (0, 3)


@pytest.mark.parametrize(
    ("seed", "epoch", "samples"),
    [(-1, 0, [0]), (2**64, 0, [0]), (0, -1, [0]), (0, 2**32, [0]), (0, 0, [0, -1]), (0, 0, [0.5]), (0, 0, [True])],
)
def test_a_seed_epoch_or_index_out_of_range_is_an_error(seed: int, epoch: int, samples: list[int]) -> None:
    with pytest.raises(InputError, match=r"(seed|epoch) is|indices must be"):
        random_words(seed, epoch, samples, 0, 1)


def test_stored_streams_keep_their_numbers() -> None:
    assert {stream.name: int(stream) for stream in Stream} == {
        "ORDER": 0, "POLICY": 1, "CROP": 2, "FLIP": 3, "CUTOUT": 4, "SUBSET": 5, "ERASING": 6, "MIXING": 7,
        "SAMPLING": 8, "UNLABELLED": 9,
    }  # fmt: skip


def test_uniform_is_inside_0_and_1_in_equal_steps() -> None:
    values = uniform(np.array([0, 1, 2**31, 2**32 - 2, 2**32 - 1], np.uint32))
    assert values.min() > 0
    assert values.max() < 1
    assert values[1] - values[0] == values[4] - values[3] == 2.0**-32
    assert values[0] == 1 - values[4]


@given(st.integers(1, 2**31))
@settings(max_examples=30)
def test_integers_below_reach_0_and_bound_minus_1(bound: int) -> None:
    lowest, highest = integers_below(np.array([0, 2**32 - 1], np.uint32), bound)
    assert (lowest, highest) == (0, bound - 1)


@pytest.mark.parametrize("bound", [2, 7, 16, 100])
def test_integers_below_are_uniform(bound: int) -> None:
    drawn = integers_below(random_words(3, 1, np.arange(5000), Stream.CROP, 2), bound)
    assert_uniform(np.bincount(drawn.ravel(), minlength=bound))


def test_integers_below_broadcast_the_bound() -> None:
    drawn = integers_below(random_words(0, 0, np.arange(500), 0, 3), (1, 5, 60))
    assert drawn.max(axis=0).tolist() == [0, 4, 59]


@given(seeds, epochs, st.integers(0, 200))
@settings(max_examples=30)
def test_a_permutation_has_every_number_once(seed: int, epoch: int, count: int) -> None:
    assert sorted(permutation(seed, epoch, count).tolist()) == list(range(count))


def test_permutations_differ_by_seed_epoch_and_stream() -> None:
    keys = [(0, 0, Stream.ORDER), (0, 1, Stream.ORDER), (1, 0, Stream.ORDER), (0, 0, Stream.SUBSET)]
    orders = [permutation(seed, epoch, 50, stream).tolist() for seed, epoch, stream in keys]
    assert len({tuple(order) for order in orders}) == len(keys)
    assert permutation(0, 0, 50).tolist() == orders[0]


def test_every_order_of_three_is_equally_likely() -> None:
    orders = [tuple(permutation(5, epoch, 3).tolist()) for epoch in range(3000)]
    assert_uniform([orders.count(order) for order in permutations(range(3))])


@pytest.mark.parametrize(("seed", "epoch"), [(1.5, 0), (None, 0), ("1", 0), (0, 0.5), (0, float("nan"))])
def test_a_seed_or_epoch_of_another_type_is_an_error(seed: object, epoch: object) -> None:
    with pytest.raises(InputError, match=r"(seed|epoch) is .* but must be a whole number"):
        random_words(seed, epoch, [0], 0, 1)


@pytest.mark.parametrize("indices", [[1.5], ["a"], [True], [[1, 2], [3, 4]], [-1]])
def test_invalid_indices_are_an_error(indices: list[object]) -> None:
    with pytest.raises(InputError, match="sample indices must be a list of whole numbers"):
        random_words(0, 0, indices, 0, 1)
