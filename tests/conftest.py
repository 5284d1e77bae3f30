"""What all tests share: reproducible property tests, one thread for torch, and one measure of uniformity."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from numpy.typing import ArrayLike

from kdaug import apply, plan_of

settings.register_profile(
    "reproducible", derandomize=True, deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("reproducible")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The networks of the tests are too small to share, and the processor may be busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def _kernels_are_compiled() -> None:
    """Here, once, so that no test that counts lines or seconds is the first to need them."""
    plan = plan_of([[("rotate", 1.0)]], (2, 2))
    for resample in range(3):
        apply(np.zeros((1, 2, 2, 1), np.uint8), replace(plan, resample=np.full_like(plan.resample, resample)))


@pytest.fixture
def assert_uniform() -> Callable[[ArrayLike], None]:
    """Fails when counts of equally likely outcomes are further apart than chance allows (chi-square, 5 sigma)."""

    def check(counts: ArrayLike) -> None:
        seen = np.asarray(counts, float).ravel()
        expected = seen.sum() / seen.size
        assert expected >= 20, "too few draws to tell"
        freedom = seen.size - 1
        chi_square = ((seen - expected) ** 2 / expected).sum()
        # Wilson-Hilferty: the cube root of chi-square over its freedom is normal.
        z = ((chi_square / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / np.sqrt(2 / (9 * freedom))
        assert z < 5, f"chi-square {chi_square:.1f} with {freedom} degrees of freedom: {seen.astype(int).tolist()}"

    return check
