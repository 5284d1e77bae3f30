"""The type of a named recipe, and the tables of published settings and results that the families are built from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from kdaug.config import Recipe


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe with what is known about it before training.

    family: the group it belongs to, such as "Table 2, CIFAR-10". summary: one line. source: where the settings come
    from, and which of them are our choice. make: builds the recipe. classes, images: numbers of classes and training
    images; images is None for the user's own photos. published_error: top-1 error in percent in the paper, None if it
    gives none. existing_teacher: network and image size in pixels of a teacher that the recipe loads from a run, which
    may not exist yet, or from the package; None for all other recipes.
    """

    name: str
    family: str
    summary: str
    source: str
    make: Callable[[], Recipe]
    classes: int
    images: int | None
    published_error: float | None = None
    existing_teacher: tuple[str, int] | None = None

    @property
    def image_size(self) -> int:
        """Height and width of the images in pixels."""
        return self.make().data.side

    @property
    def documentation(self) -> str:
        """The summary, the family, the published error and the source, on a few lines."""
        published = [] if self.published_error is None else [f"Published error: {self.published_error:g} %."]
        return "\n".join([f"{self.summary}.", f"{self.family}.", *published, self.source])


@cache
def load_table(name: str) -> dict[str, Any]:
    """The content of tables/`name`.json: "paper" (its results), "settings" (published) or "operations"."""
    content: dict[str, Any] = json.loads((resources.files("kdaug.recipes") / "tables" / f"{name}.json").read_bytes())
    return content


def counted_operations(network: str, image_size: int, classes: int) -> int:
    """Floating-point operations of one forward pass of `network` on one image of `image_size` pixels.

    Read from a table made by tools/count_operations.py, which is faster than building the network. Raises KeyError for
    a network that no named recipe uses.
    """
    count: int = load_table("operations")[f"{network} {image_size} {classes}"]
    return count
