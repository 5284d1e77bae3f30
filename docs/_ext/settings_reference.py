"""Sphinx directive `settings-reference`: a table for each section of a recipe, from the dataclasses of kdaug.config."""

from __future__ import annotations

import ast
import inspect
import types
import typing
from dataclasses import MISSING, fields
from typing import Annotated, Any, Literal

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from kdaug.config import Recipe
from kdaug.config.checks import describe_range


class SettingsReference(SphinxDirective):
    """Headings and tables for all settings: name, type and range, default, meaning."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(inspect.getfile(Recipe))
        sections = typing.get_type_hints(Recipe)
        text = "\n\n".join(section_markdown(name, kind) for name, kind in sections.items())
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def section_markdown(name: str, kind: type) -> str:
    """The heading, description and table of the section `name`, whose dataclass is `kind`."""
    hints, meanings = typing.get_type_hints(kind, include_extras=True), field_docstrings(kind)
    lines = [f"## {name}", "", inspect.cleandoc(kind.__doc__ or ""), ""]
    lines += ["| setting | type and range | default | meaning |", "|---|---|---|---|"]
    for field in fields(kind):
        default = field.default if field.default is not MISSING else field.default_factory()  # type: ignore[misc]
        limits = describe_range(hints[field.name]).removesuffix(", or None").replace(str(2**63), "2^63")
        parts = [type_text(hints[field.name]), limits]
        cells = [f"`{name}.{field.name}`", "; ".join(filter(None, parts)), default_text(default), meanings[field.name]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def field_docstrings(kind: type) -> dict[str, str]:
    """The string literal below each field of a dataclass, on one line."""
    (definition,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(definition, ast.ClassDef)
    docstrings = {}
    for field, after in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            assert isinstance(after, ast.Expr), f"{kind.__name__}.{field.target.id} has no docstring"
            docstrings[field.target.id] = " ".join(ast.literal_eval(after.value).split())
    return docstrings


def type_text(hint: Any) -> str:
    """A type as text: "int or None", "`pad` or `none`", "list of float"."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return type_text(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_text(argument) for argument in arguments)
    if origin is dict:
        return "mapping of name to number, text or bool"
    if origin is tuple:
        return f"list of {type_text(arguments[0])}"
    return "None" if hint is types.NoneType else hint.__name__


def default_text(default: Any) -> str:
    """A default as it is written in YAML."""
    match default:
        case None:
            return "None"
        case bool():
            return f"`{str(default).lower()}`"
        case ():
            return "`[]`"
    return f"`{default}`"


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("settings-reference", SettingsReference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
