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
    item: str | None = None  # the kind of list item that the line before belongs to
    for line in lines:
        text, indented = line.strip(), line.startswith(" ")
        named = NAMES.fullmatch(text)
        if not text:
            result.append("")
            item = None
        elif named and not indented:
            result += ["", f"- **{named[1]}**: {named[2]}"]
            item = "name"
        elif indented and not line.startswith("   "):
            result += ["", f"- {text}"]
            item = "indented"
        elif item == "name" or (item == "indented" and indented):
            result.append(f"  {text}")
        else:
            result += ["", text] if item else [text]
            item = None
    return result


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = to_rest(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
