"""AugMix: several chains of ops, blended with the image."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdaug.rng import Stream, Words, integers_below, random_words, uniform
from kdaug.views.chains import BLENDS, Blend, ChainMix
from kdaug.views.draw_plan import OpTable, RandomWords
from kdaug.views.plan import Size, ViewPlan
from kdaug.views.policies.randaugment import WORDS_PER_OP
from kdaug.views.policies.standard import CIFAR_MEAN
from kdaug.views.policies.timm_strings import MAX_LEVEL, MAX_MAGNITUDE, draw_levels, read_parts, with_magnitude
from kdaug.views.space_tables import get_space

MAX_DRAWN_DEPTH = 3
_MAX_CHAINS = 16
_PARTS = {
    "m": (int, 0, MAX_MAGNITUDE), "w": (int, 1, _MAX_CHAINS), "d": (int, 0, _MAX_CHAINS), "a": (float, 0.1, 100),
    "b": (int, 0, 1), "mstd": (float, 0, 1e6),
}  # fmt: skip


@dataclass(frozen=True)
class AugMix:
    """`width` chains of `depth` ops each, summed with random weights and blended with the image.

    Hendrycks et al., arXiv 1912.02781, as in timm's strings `augmix-...`. depth 0: each chain has 1, 2 or 3 ops, drawn
    uniformly. The weights of the chains are drawn from Dirichlet(alpha, ..., alpha), their share in the view from
    Beta(alpha, alpha). magnitude, noise: as in `draw_levels`. blend: as in ChainMix. The ops are those of space
    timm-augmix, drawn uniformly with replacement. The paper's consistency loss over three views is not part of it.
    """

    magnitude: float = 3
    width: int = 3
    depth: int = 0
    alpha: float = 1
    noise: float = math.inf
    blend: Blend = "sum"
    spec: str = field(default="augmix", compare=False)
    """The string that this policy was created from."""
    space: ClassVar[str] = "timm-augmix"
    stream: ClassVar[Stream] = Stream.POLICY
    _table: OpTable = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        space = get_space(self.space)
        # at level 1, so that a factor of the level is the level
        object.__setattr__(self, "_table", OpTable(space, [(name, 1.0) for name in space.ops], CIFAR_MEAN))

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        depth = self.depth or MAX_DRAWN_DEPTH
        steps, header = self.width * depth, 1 + 2 * self.width
        words = random_words(seed, epoch, indices, Stream.POLICY, header + steps * WORDS_PER_OP)
        op_words = words[:, header:].reshape(len(words), steps, WORDS_PER_OP)
        plan = self._table.plan(
            integers_below(op_words[..., 0], len(self._table)),
            RandomWords(op_words[..., 2], op_words[..., 3], op_words[..., 4], resample=op_words[..., 6]),
            size,
            applied=None if self.depth else _within_drawn_depth(words[:, 1 + self.width : header]),
            level_factor=draw_levels(self.magnitude, self.noise, MAX_LEVEL, op_words[..., 1]),
        )
        share, weight = _draw_beta(words[:, 0], self.alpha), _draw_dirichlet(words[:, 1 : 1 + self.width], self.alpha)
        return replace(plan, chain_mix=ChainMix(0, depth, weight, share, size, self.blend))


def _within_drawn_depth(words: Words) -> NDArray[np.bool_]:
    """Which steps of W chains of MAX_DRAWN_DEPTH steps are applied: bool [N,W*3]. words: [N,W], the depth of each."""
    depth = 1 + integers_below(words, MAX_DRAWN_DEPTH)
    return (np.arange(MAX_DRAWN_DEPTH) < depth[..., None]).reshape(len(words), -1)


def _draw_beta(words: Words, alpha: float) -> NDArray[np.float32]:
    """Quantiles of Beta(alpha, alpha) at words [N]: float32 [N]."""
    from scipy.special import betaincinv  # scipy takes a while to import

    quantiles: NDArray[np.float64] = betaincinv(alpha, alpha, uniform(words))
    return quantiles.astype(np.float32)


def _draw_dirichlet(words: Words, alpha: float) -> NDArray[np.float32]:
    """Weights from Dirichlet(alpha, ..., alpha), float32 [N,W]: Gamma(alpha) at words [N,W], divided by their sum."""
    from scipy.special import gammaincinv  # scipy takes a while to import

    gamma: NDArray[np.float64] = gammaincinv(alpha, uniform(words))
    weights: NDArray[np.float64] = gamma / gamma.sum(axis=1, keepdims=True)
    return weights.astype(np.float32)


def augmix(text: str, magnitude: int | None = None) -> AugMix:
    """The policy of timm's string `text`. magnitude: replaces the part m.

    Raises InputError for a part that is unknown, repeated or out of range.
    """
    if magnitude is not None:
        text = with_magnitude(text, magnitude)
    parts = read_parts(text, _PARTS)
    return AugMix(
        magnitude=parts.get("m", 3),
        width=int(parts.get("w", 3)),
        depth=int(parts.get("d", 0)),
        alpha=parts.get("a", 1),
        noise=parts.get("mstd", math.inf),
        blend=BLENDS[int(parts.get("b", 0))],
        spec=text,
    )
