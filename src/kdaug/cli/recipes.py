"""kdaug recipes [show NAME]"""

from __future__ import annotations

import inspect

from kdaug.config import to_yaml
from kdaug.errors import InputError
from kdaug.recipes import RECIPES, named_recipe

HELP = """usage: kdaug recipes             list the named recipes
       kdaug recipes show NAME   one recipe as YAML, to change and train from"""


def run(arguments: list[str]) -> int:
    """Lists or shows; returns the exit code."""
    match arguments:
        case []:
            for name in RECIPES:
                print(f"{name:<24}{_documentation(name).splitlines()[0]}")
            print("\nkdaug recipes show NAME prints one as YAML; kdaug train NAME trains it.")
        case ["show", name]:
            recipe = named_recipe(name)
            print(
                "".join(f"# {line}".rstrip() + "\n" for line in _documentation(name).splitlines()) + to_yaml(recipe),
                end="",
            )
        case ["-h" | "--help"]:
            print(HELP)
        case _:
            raise InputError(f"kdaug recipes does not understand {' '.join(arguments)!r}; kdaug recipes [show NAME]")
    return 0


def _documentation(name: str) -> str:
    return inspect.getdoc(RECIPES[name]) or name
