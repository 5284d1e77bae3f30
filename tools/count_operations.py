"""Writes src/kdaug/recipes/tables/operations.json: what one forward pass costs, for every network that a recipe uses.

python tools/count_operations.py
"""

from __future__ import annotations

import json
from pathlib import Path

from kdaug.networks.operations import count_forward_operations
from kdaug.recipes import RECIPES
from kdaug.recipes.cost import estimate

TABLE = Path(__file__).parents[1] / "src" / "kdaug" / "recipes" / "tables" / "operations.json"


def count_all() -> dict[str, int]:
    """Operations by "network side classes"."""
    counts: dict[str, int] = {}
    for named in RECIPES.values():
        classes, channels = named.classes, 1 if named.name == "demo" else 3

        def forward(network: str, side: int, classes: int = classes, channels: int = channels) -> int:
            count = count_forward_operations(network, classes, channels, (side, side))
            counts[f"{network} {side} {classes}"] = count
            return count

        estimate(named.make(), named.images or 1, named.side, forward, named.answers)
    return counts


if __name__ == "__main__":
    TABLE.write_text(json.dumps(dict(sorted(count_all().items())), indent=1) + "\n")
