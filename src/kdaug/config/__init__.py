"""The recipe of a training run: its settings as frozen dataclasses, their ranges, reading and writing YAML."""

from kdaug.config.checks import check, check_source, describe_range, split_source, without_unused_settings
from kdaug.config.methods import METHODS, with_method
from kdaug.config.recipe import (
    Adversary,
    Crop,
    Data,
    Divergence,
    Method,
    Network,
    Optimization,
    Reading,
    Recipe,
    Run,
    Supervision,
    Teacher,
    TrackerName,
    Views,
    WeightSchedule,
)
from kdaug.config.resolved import ResolvedRecipe, ResolvedRun, ResolvedViews
from kdaug.config.teacher_recipe import derive_teacher_recipe, teacher_network
from kdaug.config.yaml_io import (
    describe_value,
    from_yaml,
    parse_plain_yaml,
    read_recipe,
    to_dict,
    to_yaml,
    with_settings,
)

__all__ = [
    "METHODS",
    "Adversary",
    "Crop",
    "Data",
    "Divergence",
    "Method",
    "Network",
    "Optimization",
    "Reading",
    "Recipe",
    "ResolvedRecipe",
    "ResolvedRun",
    "ResolvedViews",
    "Run",
    "Supervision",
    "Teacher",
    "TrackerName",
    "Views",
    "WeightSchedule",
    "check",
    "check_source",
    "derive_teacher_recipe",
    "describe_range",
    "describe_value",
    "from_yaml",
    "parse_plain_yaml",
    "read_recipe",
    "split_source",
    "teacher_network",
    "to_dict",
    "to_yaml",
    "with_method",
    "with_settings",
    "without_unused_settings",
]
