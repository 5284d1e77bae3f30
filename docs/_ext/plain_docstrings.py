"""Sphinx extension that turns kdaug's docstrings, which are plain text, into reStructuredText for autodoc.

A line that starts with "name: " or "name, name: " becomes a list item, and so does an indented line.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

NAMES = re.compile(r"([a-z_]\w*(?:, [a-z_]\w*)*): (.*)")


def to_rest(lines: list[str]) -> list[str]:
    """The lines of a docstring as reStructuredText."""
    result: list[str] = []
    in_item = False
    for line in lines:
        text = line.strip()
        named = NAMES.fullmatch(text)
        if named or (line.startswith(" ") and not line.startswith("    ")):
            item = f"- **{named[1]}**: {named[2]}" if named else f"- {text}"
            result += ["", item]
            in_item = True
        elif not text:
            result.append("")
            in_item = False
        else:
            result.append(f"  {text}" if in_item else text)
    return result


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = to_rest(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
