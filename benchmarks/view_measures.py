"""Measures which share of a run's time its measures on fixed views take (kdaug.training.view_measures).

    python benchmarks/view_measures.py                      # the recipe demo, with its teacher
    python benchmarks/view_measures.py RECIPE --json FILE  # a named recipe or a recipe.yaml; also to FILE

"choose" is the time to make the sample and the teacher's pass over it, once; "measure" that of all student's passes.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from harness.machine import load_average, this_machine
from harness.report import write_json
from harness.script import script_parser
from kdaug.cli.recipe_arguments import find_recipe
from kdaug.training import run as training_run
from kdaug.training import train


def timed(name: str, function: Callable[..., Any], spent: dict[str, float]) -> Callable[..., Any]:
    """`function`, which adds the seconds of each call to `spent`."""

    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = function(*args, **kwargs)
        spent[name] += time.perf_counter() - start
        return result

    return call


def main() -> None:
    parser = script_parser(__doc__ or "")
    parser.add_argument("recipe", nargs="?", default="demo", help="a named recipe or a recipe.yaml; default: demo")
    args = parser.parse_args()
    recipe, spent, load = find_recipe(args.recipe), {"choose": 0.0, "measure": 0.0}, load_average()
    choose = timed("choose", training_run.choose_views, spent)
    measure = timed("measure", training_run.measure_views, spent)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(training_run, "choose_views", choose),
        patch.object(training_run, "measure_views", measure),
    ):
        recipe = dataclasses.replace(recipe, run=dataclasses.replace(recipe.run, dir=f"{folder}/run"))
        seconds = train(recipe).seconds
    share = sum(spent.values()) / seconds
    print(f"{args.recipe}: {100 * share:.2f} % of {seconds:.0f} s ({spent})")
    if args.json:
        machine = {"machine": dataclasses.asdict(this_machine()), "load": load}
        write_json(args.json, machine | {"recipe": args.recipe, "seconds": seconds, "spent": spent, "share": share})


if __name__ == "__main__":
    main()
