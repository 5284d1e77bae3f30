"""Trains the tests' tiny recipe as one rank: `python -m support.train_rank RECORD SETTINGS`.

SETTINGS: a JSON object of settings by dotted name. The rank writes RECORD/RANK.json: the indices, labels and hashes of
the views of each of its steps. It exits with 130 if it was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import support.networks  # noqa: F401  (registers the networks)
from support.recipes import TINY, with_settings

from kdaug.training import Interrupted, run, train

batches: list[dict[str, Any]] = []
training_batches = run.training_batches


def record_batches(*arguments: Any) -> Iterator[Any]:
    for batch in training_batches(*arguments):
        hashes = [hashlib.sha256(view.numpy().tobytes()).hexdigest() for view in batch.pixels]
        batches.append({"indices": batch.key.indices.tolist(), "labels": batch.labels.tolist(), "views": hashes})
        yield batch


run.training_batches = record_batches
try:
    train(with_settings(TINY, json.loads(sys.argv[2])))
except Interrupted:
    sys.exit(130)
(Path(sys.argv[1]) / f"{os.environ.get('RANK', '0')}.json").write_text(json.dumps(batches))
