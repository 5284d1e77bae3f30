"""Which weights the networks of a run on photos start from."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch

from kdaug.config import Network, Recipe, teacher_network
from kdaug.errors import InputError
from kdaug.networks import check_published, create_network, split_digest
from kdaug.networks.weights import find_weights, read_network_info

_CLASSES, _CHANNELS = 2, 3
"""Any number of classes will do: the classifier is replaced."""


@dataclass(frozen=True)
class Start:
    """Settings of initial weights by dotted name, and lines that say what was chosen and why."""

    settings: dict[str, Any]
    reasons: list[str]


def choose_start(recipe: Recipe, given: Collection[str]) -> Start:
    """timm's weights of student.name if they can be had, else random ones; and likewise of teacher.network.

    For weights of a run, or of a file that kdaug wrote, student.name is their network.

    given: the settings that the user has set, which stay. Downloads weights that are not in the cache. Raises
    InputError for an unknown network.
    """
    settings, reasons = dict[str, Any](), list[str]()
    if "student.name" not in given:
        network = _network_of(recipe.student.weights) or recipe.student.name
        settings["student.name"] = network
        if network != recipe.student.name:
            reasons.append(f"student.name is {network}, the network of {recipe.student.weights}")
    if not {"student.pretrained", "student.weights"} & set(given):
        problem = _problem(recipe.student)
        settings["student.pretrained"] = problem is None
        reasons.append(_describe("the student", recipe.student.name, problem))
    trains_other = recipe.teacher.source == "train" and recipe.teacher.network is not None
    if trains_other and "teacher.weights" not in given:
        teacher = teacher_network(recipe)
        problem = _problem(teacher)
        settings["teacher.weights"] = f"timm:{teacher.name}" if problem is None else None
        reasons.append(_describe("the teacher", teacher.name, problem))
    return Start(settings, reasons)


def _network_of(weights: str | None) -> str | None:
    """The name of the network that kdaug wrote into `weights`, run:DIR or file:PATH; None if there is none."""
    if weights is None or weights.startswith("timm:"):
        return None
    info = read_network_info(find_weights(split_digest(weights)[0], "student.weights"))
    return None if info is None else info.network


def _describe(who: str, name: str, problem: str | None) -> str:
    if problem is None:
        return f"{who} starts from timm's pretrained weights of {name}"
    return f"{who} starts from random weights: {problem}"


def _problem(network: Network) -> str | None:
    """Why timm's weights of `network` cannot be used; None if they can."""
    try:
        check_published(network.name)
        with torch.random.fork_rng(devices=[]):
            create_network(network.name, _CLASSES, _CHANNELS, pretrained=True, arguments=network.arguments)
    except InputError as error:
        return f"{error.problem}; {error.hint}" if error.hint else error.problem
    return None
