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
from kdaug.recipes.cost import GPU_OPERATIONS_PER_SECOND, estimate

if TYPE_CHECKING:
    from kdaug.training.smoke_test import SmokeTestResult


@dataclass(frozen=True)
class Arguments:
    """List the named recipes with what is published of them and what they cost; show one; or try them out.

    kdaug recipes                    all of them
    kdaug recipes cifar100 kd        those with all these words in their name, family or description
    kdaug recipes show NAME          one as YAML with its sources, to change and train from
    kdaug recipes --check imagenet   builds each, two optimisation steps at its real image size, one evaluation
    """

    words: tyro.conf.Positional[tuple[str, ...]] = ()
    """Words to look for, or show and a name."""
    check: bool = False
    """Try the recipes out on noise, each in a process of its own; minutes, for all of them most of an hour."""
    json: bool = False
    """One JSON object per recipe and line."""


def run(arguments: list[str]) -> int:
    """Lists, shows or checks; returns the exit code, 1 if a recipe checked is not sound."""
    given = parse(Arguments, arguments, "kdaug recipes")
    if given.words[:1] == ("show",):
        if len(given.words) != 2:
            raise InputError("show takes the name of one recipe: kdaug recipes show NAME")
        _show(given.words[1])
        return 0
    found = [named for named in RECIPES.values() if all(word.lower() in _text(named) for word in given.words)]
    if not found:
        raise InputError(f"no recipe has {' and '.join(given.words)} in its name or description; kdaug recipes has all")
    if given.check:
        return _check(found, given.json)
    if given.json:
        for named in found:
            print(json.dumps(_facts(named)))
    else:
        _list(found)
    return 0


def _text(named: NamedRecipe) -> str:
    return f"{named.name} {named.family} {named.what}".lower()


def _show(name: str) -> None:
    recipe = named_recipe(name)
    comments = "".join(f"# {line}".rstrip() + "\n" for line in RECIPES[name].documentation.splitlines())
    print(comments + to_yaml(recipe), end="")


def _facts(named: NamedRecipe) -> dict[str, Any]:
    recipe, facts = named.make(), {}
    if named.images is not None:
        forward = partial(counted_operations, classes=named.classes)
        cost = estimate(recipe, named.images, named.side, forward, named.answers)
        facts = {"operations": cost.operations, "gpu_hours": round(cost.gpu_hours, 2)}
    return {
        "name": named.name,
        "family": named.family,
        "what": named.what,
        "source": named.source,
        "published_error": named.published_error,
        "global_batch": recipe.optimization.global_batch,
        "epochs": recipe.optimization.all_epochs,
        **facts,
    }


def _list(found: Iterable[NamedRecipe]) -> None:
    for family, members in groupby(found, lambda named: named.family):
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
        "published: top-1 error in the paper. GPU-hours: a guess, at "
        f"{GPU_OPERATIONS_PER_SECOND / 1e12:g} teraflop/s, a teacher to be trained included; "
        "EfficientNets stay well below that rate and take several times as long.\n"
        "kdaug recipes show NAME prints one with its sources; kdaug train NAME trains it."
    )


def _check(found: list[NamedRecipe], as_json: bool) -> int:
    from kdaug.training.smoke_test import SmokeTestResult, smoke_test_in_subprocess

    if not as_json:
        print(f"{'recipe':<54}{'step':>9}{'evaluation':>12}{'memory':>10}{'loss':>8}")
    failed = 0
    for named in found:
        seen = smoke_test_in_subprocess(named.make(), named.classes, named.answers)
        failed += isinstance(seen, str)
        if as_json:
            figures = vars(seen) if isinstance(seen, SmokeTestResult) else {"error": seen}
            print(json.dumps({"name": named.name, **figures}), flush=True)
        else:
            print(f"{named.name:<54}{_seen(seen)}", flush=True)
    if failed:
        print_error(f"{failed} of {len(found)} recipes are not sound")
    elif not as_json:
        print(f"all {len(found)} are sound: built, two steps on two images of noise at their real size, one evaluation")
    return 1 if failed else 0


def _seen(seen: SmokeTestResult | str) -> str:
    if isinstance(seen, str):
        return f"FAILED: {seen}"
    memory = f"{seen.peak_bytes / 2**30:.1f} GiB"
    return f"{seen.step_seconds:>7.1f} s{seen.evaluation_seconds:>10.1f} s{memory:>10}{seen.loss:>8.2f}"
