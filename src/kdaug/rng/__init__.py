"""Counter-based random numbers: pure functions of (seed, epoch, sample index, stream), without hidden state."""

from kdaug.rng.philox import Stream, Words, below, permutation, philox4x32, uniform, words

__all__ = ["Stream", "Words", "below", "permutation", "philox4x32", "uniform", "words"]
