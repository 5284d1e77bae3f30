"""kdaug recipes [WORD ...] | show NAME | --check [WORD ...]"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import tyro

from kdaug.cli.output import print_error
from kdaug.cli.parsing import parse
from kdaug.config import to_yaml
from kdaug.errors import InputError
from kdaug.recipes import RECIPES, NamedRecipe, counted_operations, named_recipe
from kdaug.recipes.cost import GPU_OPERATIONS_PER_SECOND, estimate_cost

if TYPE_CHECKING:
    from kdaug.training.smoke_test import SmokeTestResult


@dataclass(frozen=True)
class Arguments:
    """List the named recipes with published error and cost, show one as YAML, or smoke-test them.

    kdaug recipes                    all recipes
    kdaug recipes cifar100 kd        recipes with all these words in their name, family or description
    kdaug recipes show NAME          one recipe as YAML with its sources, to edit and train
    kdaug recipes --check imagenet   build each, train two steps and evaluate once at its image size
    """

    words: tyro.conf.Positional[tuple[str, ...]] = ()
    """Words to search for, or show and a name."""
    check: bool = False
    """Smoke-test each recipe on random images in its own process; minutes, for all recipes most of an hour."""
    json: bool = False
    """Print one JSON object per recipe and line."""


def run(arguments: list[str]) -> int:
    """Lists, shows or smoke-tests recipes; returns the exit code, 1 if a smoke test failed."""
    args = parse(Arguments, arguments, "kdaug recipes")
    if args.words[:1] == ("show",):
        if len(args.words) != 2:
            raise InputError("show takes the name of one recipe: kdaug recipes show NAME")
        _show(args.words[1])
        return 0
    texts = {name: f"{name} {named.family} {named.summary}".lower() for name, named in RECIPES.items()}
    selected = [RECIPES[name] for name, text in texts.items() if all(word.lower() in text for word in args.words)]
    if not selected:
        raise InputError(
            f"no recipe has {' and '.join(args.words)} in its name or description", "kdaug recipes lists all recipes"
        )
    if args.check:
        return _smoke_test(selected, args.json)
    if args.json:
        for named in selected:
            print(json.dumps(_facts(named)))
    else:
        _list(selected)
    return 0


def _show(name: str) -> None:
    recipe = named_recipe(name)
    comments = "".join(f"# {line}".rstrip() + "\n" for line in RECIPES[name].documentation.splitlines())
    print(comments + to_yaml(recipe), end="")


def _facts(named: NamedRecipe) -> dict[str, Any]:
    recipe, facts = named.make(), {}
    if named.images is not None:
        forward = partial(counted_operations, classes=named.classes)
        cost = estimate_cost(recipe, named.images, named.image_size, forward, named.existing_teacher)
        facts = {"operations": cost.operations, "gpu_hours": round(cost.gpu_hours, 2)}
    return {
        "name": named.name,
        "family": named.family,
        "what": named.summary,
        "source": named.source,
        "published_error": named.published_error,
        "global_batch": recipe.optimization.global_batch,
        "epochs": recipe.optimization.total_epochs,
        **facts,
    }


def _list(selected: Iterable[NamedRecipe]) -> None:
    for family, members in groupby(selected, lambda named: named.family):
        print(f"{family:<54}published  batch  epochs  10^18 op  GPU-hours")
        for named in members:
            facts = _facts(named)
            error = "-" if named.published_error is None else f"{named.published_error:.1f} %"
            cost = ("-", "-")
            if "operations" in facts:
                cost = (f"{facts['operations'] / 1e18:.3g}", f"{facts['gpu_hours']:,.1f}")
            print(
                f"  {named.name:<52}{error:>9}{facts['global_batch']:>7}{facts['epochs']:>8}{cost[0]:>10}{cost[1]:>11}"
            )
        print()
    print(
        "published: top-1 error in the paper. GPU-hours: an estimate at "
        f"{GPU_OPERATIONS_PER_SECOND / 1e12:g} TFLOP/s, including the training of a teacher; EfficientNets are much "
        "slower than that rate and take several times as long.\n"
        "kdaug recipes show NAME prints a recipe with its sources; kdaug train NAME trains it."
    )


def _smoke_test(selected: list[NamedRecipe], as_json: bool) -> int:
    from kdaug.training.smoke_test import SmokeTestResult, smoke_test_in_subprocess

    if not as_json:
        print(f"{'recipe':<54}{'step':>9}{'evaluation':>12}{'memory':>10}{'loss':>8}")
    failed = 0
    for named in selected:
        result = smoke_test_in_subprocess(named.make(), named.classes, named.existing_teacher)
        failed += isinstance(result, str)
        if as_json:
            outcome = vars(result) if isinstance(result, SmokeTestResult) else {"error": result}
            print(json.dumps({"name": named.name, **outcome}), flush=True)
        else:
            print(f"{named.name:<54}{_format_result(result)}", flush=True)
    if failed:
        print_error(f"the smoke test of {failed} of {len(selected)} recipes failed")
    elif not as_json:
        print(
            f"the smoke tests of all {len(selected)} recipes passed: network built, two steps on two random images of "
            "the recipe's size, one evaluation"
        )
    return 1 if failed else 0


def _format_result(result: SmokeTestResult | str) -> str:
    if isinstance(result, str):
        return f"FAILED: {result}"
    memory = f"{result.peak_bytes / 2**30:.1f} GiB"
    return f"{result.step_seconds:>7.1f} s{result.evaluation_seconds:>10.1f} s{memory:>10}{result.loss:>8.2f}"
