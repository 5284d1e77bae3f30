"""Trains the tests' TINY recipe as one rank, RANK and so on in the environment: `python one_rank.py RECORD SETTINGS`.

SETTINGS: a JSON object by dotted names. What the rank gets to see goes to RECORD/RANK.json: per step its indices, its
labels and a hash of its views.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdaug.training import Interrupted, loop, train

spec = importlib.util.spec_from_file_location("recipes_of_the_tests", Path(__file__).with_name("conftest.py"))
assert spec is not None
assert spec.loader is not None
recipes = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = recipes
spec.loader.exec_module(recipes)

seen: list[dict[str, Any]] = []
real = loop.training_views


def recorded(*arguments: Any) -> Iterator[Any]:
    for view_batch in real(*arguments):
        hashes = [hashlib.sha256(view.numpy().tobytes()).hexdigest() for view in view_batch.pixels]
        seen.append({"indices": view_batch.key.indices.tolist(), "labels": view_batch.labels.tolist(), "views": hashes})
        yield view_batch


loop.training_views = recorded
try:
    train(recipes._changed(recipes.TINY, json.loads(sys.argv[2])))
except Interrupted:
    sys.exit(130)
(Path(sys.argv[1]) / f"{os.environ.get('RANK', '0')}.json").write_text(json.dumps(seen))
