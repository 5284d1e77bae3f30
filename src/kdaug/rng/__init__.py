"""Counter-based random numbers: pure functions of (seed, epoch, sample index, stream) without hidden state."""

from kdaug.rng.philox import Stream, Words, integers_below, permutation, philox4x32, random_words, uniform

__all__ = ["Stream", "Words", "integers_below", "permutation", "philox4x32", "random_words", "uniform"]
