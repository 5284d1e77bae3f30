"""Cells of the tables that the study scripts here write."""

import statistics
from collections.abc import Iterable, Mapping

import scipy.stats


def mean(values: Iterable[float]) -> str:
    """The mean, and of several values their standard deviation; a dash for none."""
    errors = list(values)
    if not errors:
        return "-"
    return f"{statistics.fmean(errors):.2f}" + (f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else "")


def gain(baseline: Mapping[str, float], errors: Mapping[str, float]) -> str:
    """The mean of baseline - error over the seeds of both, with the 95 % interval of Student's t for pairs.

    Empty for less than two such seeds, and for the baseline itself.
    """
    gains = [baseline[seed] - error for seed, error in errors.items() if seed in baseline]
    if len(gains) < 2 or baseline is errors:
        return ""
    half = scipy.stats.t.ppf(0.975, len(gains) - 1) * statistics.stdev(gains) / len(gains) ** 0.5
    middle = statistics.fmean(gains)
    return f"{middle:+.2f} [{middle - half:+.2f}, {middle + half:+.2f}]"
