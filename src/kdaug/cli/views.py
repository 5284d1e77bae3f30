"""kdaug views [show SPEC]"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import tyro

from kdaug.cli.parsing import parse
from kdaug.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from kdaug.views.description import PolicyDescription

HELP = """usage: kdaug views             list the policies and the spaces
       kdaug views show SPEC   what a policy, or all ops of a space, really does; writes a contact sheet"""


_LARGEST = 1024


@dataclass(frozen=True)
class Show:
    """What a policy really does at its magnitude (degrees, pixels, ...), and a picture of it."""

    spec: tyro.conf.Positional[str]
    """Specification of a policy, such as randaugment-n2-m9@timm, or the name of a space."""
    out: str = "views.png"
    """File for the contact sheet: a row per op, a column per level."""
    image: str | None = None
    """Image to show it on; None: bundled ones."""
    size: int | None = None
    """Side in pixels that the image is brought to; None: 224 for your image, 28 for bundled ones."""
    epochs: int = 200
    """Length of the run, for policies that follow the epoch."""
    all: bool = False
    """Print all sub-policies instead of the first few."""


def run(arguments: list[str]) -> int:
    """Lists or shows; returns the exit code."""
    match arguments:
        case []:
            _list()
        case ["show", *rest]:
            _show(parse(Show, rest, "kdaug views show"))
        case ["-h" | "--help"]:
            print(HELP)
        case _:
            raise InputError(f"kdaug views does not understand {' '.join(arguments)!r}; kdaug views [show SPEC]")
    return 0


def _list() -> None:
    from kdaug.views.description import SPACE_DESCRIPTIONS
    from kdaug.views.policies.spec import KNOWN

    print("Policies (several go together with commas: autoaugment-cifar10,pad-crop-4,flip,cutout-16):")
    for name, what in KNOWN.items():
        print(f"  {name:<36}{what}")
    print("\nSpaces (what a magnitude means; after an @):")
    for name, what in SPACE_DESCRIPTIONS.items():
        print(f"  {name:<36}{what}")
    print("\nkdaug views show SPEC says what one really does and writes a picture of it.")


def _show(given: Show) -> None:
    from rich.console import Console

    from kdaug.views.contact_sheet import contact_sheet, read_image, sample_images
    from kdaug.views.description import default_levels, describe, describe_space
    from kdaug.views.policies import CIFAR_MEAN, create_policy
    from kdaug.views.spaces import SPACES

    if not given.out.endswith(".png"):
        raise InputError(f"--out is {given.out}, but must end in .png: the contact sheet is one")
    if given.size is not None and not 1 <= given.size <= _LARGEST:
        raise InputError(f"--size is {given.size}, but must be from 1 to {_LARGEST}")
    images = [read_image(given.image, given.size or 224)] if given.image else sample_images(10, given.size or 28)
    size = images[0].shape[0], images[0].shape[1]
    if given.spec in SPACES:
        parts = [describe_space(given.spec, size)]
    else:
        parts = describe(create_policy(given.spec, epochs=given.epochs), size)
    console = Console(highlight=False)
    for part in parts:
        _print_table(console, part, size)
        _print_sub_policies(console, part, given.all)
    if not parts:
        console.print(f"{given.spec} reads no levels; kdaug views lists policies that do", markup=False)
        return
    part = parts[0]
    levels = part.levels if len(part.levels) > 1 else sorted({*default_levels(part.space), *part.levels})
    contact_sheet(part.space, part.ops, levels, images, CIFAR_MEAN, given.out, f"{given.spec}: ops by level")
    console.print(f"the picture is in {given.out}", markup=False, soft_wrap=True)


def _print_table(console: Console, part: PolicyDescription, size: tuple[int, int]) -> None:
    from rich.table import Column, Table
    from rich.text import Text

    space = part.space
    chance = f", each op applied with probability {space.probability:g}" if space.probability < 1 else ""
    fill = space.fill if isinstance(space.fill, str) else ", ".join(map(str, space.fill))
    console.print(
        f"space {space.name} on {size[0]} x {size[1]} pixels; fill {fill}, {' or '.join(space.resample)}{chance}",
        markup=False,
    )
    table = Table(Column("op", no_wrap=True), *(f"at {level:g}" for level in part.levels))
    for op, row in zip(part.ops, part.table, strict=True):
        table.add_row(op, *map(Text, row))
    console.print(table)


def _print_sub_policies(console: Console, part: PolicyDescription, everything: bool) -> None:
    lines = part.sub_policies
    if not lines:
        return
    shown = lines if everything else lines[:5]
    console.print(f"{len(lines)} {part.kind}:")
    for number, line in enumerate(shown, 1):
        console.print(f"{number:>4}  {line}", markup=False, soft_wrap=True)
    if len(shown) < len(lines):
        console.print("      ... (--all shows the rest)")
