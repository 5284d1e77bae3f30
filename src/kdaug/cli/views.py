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
       kdaug views show SPEC   print the ops of a policy or space with their arguments; write a contact sheet"""

_MAX_SIZE = 1024


@dataclass(frozen=True)
class Show:
    """Print the ops of a policy or space with their arguments (degrees, pixels, ...) and write a contact sheet."""

    spec: tyro.conf.Positional[str]
    """Policy specification, such as randaugment-n2-m9@timm, or name of a space."""
    out: str = "views.png"
    """PNG file of the contact sheet: one row per op, one column per level."""
    image: str | None = None
    """Image to augment; None: bundled images."""
    size: int | None = None
    """Side in pixels that the image is resized to; None: 224 for your image, 28 for bundled images."""
    epochs: int = 200
    """Epochs of the run, for policies that depend on the epoch."""
    all: bool = False
    """Print all sub-policies instead of the first five."""


def run(arguments: list[str]) -> int:
    """Lists the policies or shows one; returns the exit code."""
    match arguments:
        case []:
            _list()
        case ["show", *rest]:
            _show(parse(Show, rest, "kdaug views show"))
        case ["-h" | "--help"]:
            print(HELP)
        case _:
            raise InputError(f"kdaug views has no arguments {' '.join(arguments)!r}", "use kdaug views [show SPEC]")
    return 0


def _list() -> None:
    from kdaug.views.description import SPACE_DESCRIPTIONS
    from kdaug.views.policies.spec import SPEC_DESCRIPTIONS

    print("Policies (combine several with commas: autoaugment-cifar10,pad-crop-4,flip,cutout-16):")
    for name, description in SPEC_DESCRIPTIONS.items():
        print(f"  {name:<36}{description}")
    print("\nSpaces (written after @; they define the ops and what a magnitude means):")
    for name, description in SPACE_DESCRIPTIONS.items():
        print(f"  {name:<36}{description}")
    print("\nkdaug views show SPEC prints the ops of one and writes a contact sheet.")


def _show(args: Show) -> None:
    from rich.console import Console

    from kdaug.views.contact_sheet import contact_sheet, read_image, sample_images
    from kdaug.views.description import default_levels, describe, describe_space
    from kdaug.views.policies import CIFAR_MEAN, create_policy
    from kdaug.views.space_tables import SPACES

    if not args.out.endswith(".png"):
        raise InputError(f"--out is {args.out}, but must end in .png")
    if args.size is not None and not 1 <= args.size <= _MAX_SIZE:
        raise InputError(f"--size is {args.size}, but must be from 1 to {_MAX_SIZE}")
    images = [read_image(args.image, args.size or 224)] if args.image else sample_images(10, args.size or 28)
    size = images[0].shape[0], images[0].shape[1]
    if args.spec in SPACES:
        parts = [describe_space(args.spec, size)]
    else:
        parts = describe(create_policy(args.spec, epochs=args.epochs), size)
    console = Console(highlight=False)
    for part in parts:
        _print_table(console, part, size)
        _print_sub_policies(console, part, args.all)
    if not parts:
        console.print(f"{args.spec} has no ops with levels; kdaug views lists policies that have", markup=False)
        return
    part = parts[0]
    levels = part.levels if len(part.levels) > 1 else sorted({*default_levels(part.space), *part.levels})
    contact_sheet(part.space, part.ops, levels, images, CIFAR_MEAN, args.out, f"{args.spec}: ops by level")
    console.print(f"contact sheet written to {args.out}", markup=False, soft_wrap=True)


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
    if part.summary:
        console.print(part.summary, markup=False)
    table = Table(Column("op", no_wrap=True), *(f"at {level:g}" for level in part.levels))
    for op, row in zip(part.ops, part.table, strict=True):
        table.add_row(op, *map(Text, row))
    console.print(table)


def _print_sub_policies(console: Console, part: PolicyDescription, all_of_them: bool) -> None:
    lines = part.sub_policies
    if not lines:
        return
    shown = lines if all_of_them else lines[:5]
    console.print(f"{len(lines)} {part.kind}:")
    for number, line in enumerate(shown, 1):
        console.print(f"{number:>4}  {line}", markup=False, soft_wrap=True)
    if len(shown) < len(lines):
        console.print("      ... (--all prints the rest)")
