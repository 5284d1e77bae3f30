"""What a named recipe is, and the tables of published settings and figures that the families are built from."""

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
    """A recipe, and what is known of it before it is trained.

    family: what it belongs to, such as "Table 2, CIFAR-10". what: one line. source: where its settings are from, and
    what of them is ours. published_error: top-1 error in percent that the paper reports, None if it has none. classes,
    images: of its data; images for training, None for one's own. answers: network and side in pixels of the teacher if
    the recipe names a run for one, which does not say so before it is there.
    """

    name: str
    family: str
    what: str
    source: str
    make: Callable[[], Recipe]
    classes: int
    images: int | None
    published_error: float | None = None
    answers: tuple[str, int] | None = None

    @property
    def side(self) -> int:
        """Of its images, in pixels."""
        data = self.make().data
        if data.name == "folder":
            return data.image_size or 224
        return 28 if data.name in ("bundled", "fashion-mnist") else 32

    @property
    def documentation(self) -> str:
        """All that is known, in a few lines."""
        published = [] if self.published_error is None else [f"Published error: {self.published_error:g} %."]
        return "\n".join([f"{self.what}.", f"{self.family}.", *published, self.source])


@cache
def table(name: str) -> dict[str, Any]:
    """The JSON file `name` in tables/: paper (its tables), settings (published recipes), operations (of networks)."""
    content: dict[str, Any] = json.loads((resources.files("kdaug.recipes") / "tables" / f"{name}.json").read_bytes())
    return content


def counted_operations(network: str, side: int, classes: int) -> int:
    """Operations of a forward pass of `network` for an image of `side` pixels, counted by tools/count_operations.py.

    Read from a table, so that recipes are listed at once. KeyError for one that no named recipe uses.
    """
    count: int = table("operations")[f"{network} {side} {classes}"]
    return count
