"""A recipe: everything a training run depends on, as one frozen value; its ranges; strict YAML in, YAML out."""

from kdaug.config.check import MAX_PROCESSES, MAX_SIDE, check, check_source
from kdaug.config.recipe import (
    Adversary,
    Crop,
    Data,
    DatasetName,
    Divergence,
    Network,
    Optimization,
    Precision,
    Reading,
    Recipe,
    Run,
    Supervision,
    Teacher,
    Tracker,
    Views,
    WeightSchedule,
)
from kdaug.config.teacher_recipe import derive_teacher_recipe
from kdaug.config.yaml_io import from_yaml, parse_plain_yaml, read_recipe, shown, to_dict, to_yaml, with_settings

__all__ = [
    "MAX_PROCESSES",
    "MAX_SIDE",
    "Adversary",
    "Crop",
    "Data",
    "DatasetName",
    "Divergence",
    "Network",
    "Optimization",
    "Precision",
    "Reading",
    "Recipe",
    "Run",
    "Supervision",
    "Teacher",
    "Tracker",
    "Views",
    "WeightSchedule",
    "check",
    "check_source",
    "from_yaml",
    "derive_teacher_recipe",
    "parse_plain_yaml",
    "read_recipe",
    "shown",
    "to_dict",
    "to_yaml",
    "with_settings",
]
