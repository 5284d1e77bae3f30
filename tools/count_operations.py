"""Writes src/kdaug/recipes/tables/operations.json: the operations of one forward pass of every network in a recipe.

python tools/count_operations.py
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from kdaug.networks import create_network
from kdaug.recipes import RECIPES
from kdaug.recipes.cost import estimate_cost

TABLE = Path(__file__).parents[1] / "src" / "kdaug" / "recipes" / "tables" / "operations.json"


@cache
def count_forward_operations(name: str, classes: int, channels: int, size: tuple[int, int]) -> int:
    """Floating-point operations of one forward pass on one image of `size` (height, width).

    Those of convolutions and matrix products, as torch's FlopCounterMode counts them: multiply and add are two.
    """
    with torch.device("meta"):
        network = create_network(name, classes, channels).eval()
        image = torch.empty(1, channels, *size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return int(counter.get_total_flops())


def count_all() -> dict[str, int]:
    """Operations per image, by "NETWORK SIDE CLASSES"."""
    counts: dict[str, int] = {}
    for named in RECIPES.values():
        classes, channels = named.classes, 1 if named.name == "demo" else 3

        def forward(network: str, side: int, classes: int = classes, channels: int = channels) -> int:
            count = count_forward_operations(network, classes, channels, (side, side))
            counts[f"{network} {side} {classes}"] = count
            return count

        estimate_cost(named.make(), named.images or 1, named.image_size, forward, named.existing_teacher)
    return counts


if __name__ == "__main__":
    TABLE.write_text(json.dumps(dict(sorted(count_all().items())), indent=1) + "\n")
