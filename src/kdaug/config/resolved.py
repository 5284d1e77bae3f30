"""The recipe that a run trains, as a type of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

from kdaug.config.recipe import Directory, Recipe, Run, Seed, Views


@dataclass(frozen=True)
class ResolvedViews(Views):
    """`Views` in which policy includes the magnitude and seed is a number."""

    magnitude: None = None
    seed: Seed = field(kw_only=True)


@dataclass(frozen=True)
class ResolvedRun(Run):
    """`Run` whose directory is set."""

    dir: Directory = field(kw_only=True)


@dataclass(frozen=True)
class ResolvedRecipe(Recipe):
    """What a run trains: shorthands replaced, defaults that depend on other settings filled in.

    A field that is still None has a meaning of its own (optimization.clip_norm None: no clipping).
    """

    views: ResolvedViews = field(kw_only=True)
    run: ResolvedRun = field(kw_only=True)
