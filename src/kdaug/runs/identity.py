"""Which runs count as the same: the settings that a result depends on, and a fingerprint of them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from kdaug.config import Recipe, to_dict
from kdaug.networks import split_digest

_DATA_SETTINGS_WITHOUT_EFFECT = frozenset({"data.download", "data.workers", "data.max_unreadable", "data.check"})
_WEIGHT_SETTINGS = ("student.weights", "teacher.weights")
_RUN_SETTINGS_WITH_EFFECT = frozenset({"run.seed", "run.evaluate_size"})


def result_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that the result depends on, by dotted name: all but where, on what device and how fast.

    Of initial weights with a digest, only the digest counts: the file may have moved.
    """
    by_name = {f"{part}.{key}": value for part, settings in to_dict(recipe).items() for key, value in settings.items()}
    for name in _WEIGHT_SETTINGS:
        digest = split_digest(str(by_name[name]))[1]
        by_name[name] = f"#{digest}" if digest else by_name[name]
    ignored = set(_DATA_SETTINGS_WITHOUT_EFFECT)
    if not recipe.data.encoded:
        ignored.add("data.root")  # a named dataset is the same everywhere
    return {
        name: value
        for name, value in by_name.items()
        if name not in ignored and (not name.startswith("run.") or name in _RUN_SETTINGS_WITH_EFFECT)
    }


def recipe_fingerprint(recipe: Recipe, images: str | None = None) -> str:
    """Ten hexadecimal digits that differ when the result does.

    Only settings that differ from their defaults count, so a setting added to kdaug does not change old fingerprints.
    images: replaces data.root of an image folder (with a digest of its content, say); None: the path itself.
    """
    defaults = result_settings(Recipe())
    settings = {name: value for name, value in result_settings(recipe).items() if value != defaults.get(name)}
    if images is not None and recipe.data.encoded:
        settings["data.root"] = images
        settings.pop("data.unlabelled", None)
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]


def recipe_differences(before: Recipe, after: Recipe) -> list[str]:
    """Each setting in which two recipes' results differ, as "name: before -> after".

    Folders of images are left out: they may have moved. `record_environment` compares their content.
    """
    old, new = result_settings(before), result_settings(after)
    ignored = {"data.root"} | ({"data.unlabelled"} if old["data.unlabelled"] and new["data.unlabelled"] else set())
    return [f"{name}: {old[name]} -> {new[name]}" for name in old if old[name] != new[name] and name not in ignored]
