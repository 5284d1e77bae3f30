"""Scripts without the `__main__` guard: a worker process that is spawned runs the script again, and must not train."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable
from multiprocessing.process import BaseProcess

from kdaug.errors import InputError

_EXIT_CODE = 86
"""By which the parent recognizes such a worker."""


def exit_if_spawned_worker() -> None:
    """Ends this process if it is a worker that only now imports the user's script; its parent reports why."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # as multiprocessing.spawn itself asks
        os._exit(_EXIT_CODE)


def missing_guard_error(workers: Iterable[BaseProcess]) -> InputError | None:
    """The error if one of `workers` has ended in `exit_if_spawned_worker`; None if none has."""
    if not any(worker.exitcode == _EXIT_CODE for worker in workers):
        return None
    return InputError(
        "the script has no __main__ guard, so each worker process would train again",
        "put the call of kdaug under: if __name__ == '__main__':",
    )
