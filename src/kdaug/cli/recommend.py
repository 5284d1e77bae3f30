"""kdaug recommend RECIPE"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from kdaug.cli.output import check_output_file, print_error
from kdaug.cli.parsing import parse
from kdaug.cli.recipe_arguments import adapt_to_flags, find_recipe, print_help_if_requested, without_method
from kdaug.config import Recipe, check

if TYPE_CHECKING:
    from kdaug.inspection import Recommendation

HELP = """usage: kdaug recommend RECIPE --teacher.source SOURCE [--json] [--out DIR] [--per-image FILE]
                              [--images N] [--draws N] [--magnitudes M ...] [--section.setting VALUE ...]

Recommends the magnitude of the policy of RECIPE, and K, from what its teacher predicts for views of the validation
images at several magnitudes. No student is trained:
  kdaug recommend cifar100-table1 --data.root data --teacher.source run:runs/teacher
  kdaug recommend photos --data.root my-photos --teacher.source train --out runs/recommendation

--out writes a page with the evidence as a plot and a table. --per-image writes a factor of the magnitude for each
training image, smaller the less sure the teacher is of it; train with it by --views.magnitude-factors FILE.

kdaug recommend RECIPE --help lists all settings."""


@dataclass(frozen=True)
class Arguments:
    """Options of a recommendation; all other flags are settings of the recipe."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    json: bool = False
    """Print the result as one JSON object: magnitude, k, evidence and warnings."""
    out: str | None = None
    """Folder for a page with the evidence; None: no page."""
    per_image: str | None = None
    """File to write a factor of the magnitude for each training image to, for views.magnitude_factors; None: none."""
    images: int | None = None
    """Number of validation images, balanced over the classes; None: as many as take minutes on two cores."""
    draws: int | None = None
    """Views of each image at each magnitude; None: one, or up to four if there are few images."""
    magnitudes: tuple[float, ...] | None = None
    """Magnitudes to measure; None: nine, and the recipe's own."""


def run(arguments: list[str]) -> int:
    """Recommends and prints; returns the exit code."""
    if print_help_if_requested(arguments, HELP, "kdaug recommend RECIPE --teacher.source SOURCE"):
        return 0
    name, flags = arguments[0], arguments[1:]
    args = parse(
        Arguments,
        flags,
        f"kdaug recommend {name}",
        default=Arguments(recipe=adapt_to_flags(find_recipe(name), flags)),
        description="Recommend magnitude and K from a teacher's predictions. Flags change the recipe's settings.",
    )
    recipe, out = check(without_method(args.recipe)), None if args.out is None else Path(args.out)
    per_image = None if args.per_image is None else Path(args.per_image)
    if per_image is not None:
        check_output_file("--per-image", per_image)

    from rich.console import Console

    from kdaug.inspection import EvidenceRequest, recommend
    from kdaug.training import Interrupted

    request = EvidenceRequest(args.images, args.draws, args.magnitudes)
    try:
        recommendation = recommend(recipe, request, Console(stderr=True), out, per_image)
    except Interrupted as stop:
        print_error(f"{stop.reason}; the same command resumes the teacher's training")
        return 130
    print(json.dumps(recommendation.as_dict()) if args.json else _describe(recommendation, out, per_image))
    return 0


def _describe(recommendation: Recommendation, out: Path | None, per_image: Path | None) -> str:
    from kdaug.inspection.recommendation import evidence_table

    lines = [
        evidence_table(recommendation).markdown(),
        f"recommended: --views.magnitude {recommendation.magnitude:g} --supervision.k {recommendation.k}",
    ]
    if per_image is not None:
        lines.append(f"factors written; train with: --views.magnitude-factors {shlex.quote(str(per_image))}")
    if out is not None:
        lines.append(f"page written to {out / 'index.html'}")
    return "\n".join(lines)
