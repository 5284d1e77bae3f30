"""Sphinx settings of the documentation; `make docs` builds it."""

import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
_project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "kdaug"
author = "kdaug developers"
copyright = author
version = release = _project["version"]

extensions = ["myst_parser", "plain_docstrings", "settings_reference", "sphinx.ext.mathjax"]
exclude_patterns = ["_build", "_ext", "_static"]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
default_role = "code"  # `name` in docstrings
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_type_aliases = {"ArrayLike": "ArrayLike", "NDArray": "NDArray"}
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = f"kdaug {release}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
