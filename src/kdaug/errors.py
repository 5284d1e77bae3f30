"""InputError: what the user gave cannot be used, in one line that says what to do about it."""

from __future__ import annotations

import difflib


class InputError(Exception):
    """What the user gave cannot be used. The message names the thing, where it stands, and the way out.

    problem: what is wrong ("runs/a exists"). way_out: what to do about it, with settings by their dotted names ("set
    run.resume to continue it, or choose another run.dir"); empty if `problem` says it. `str()` joins both. The command
    line writes the settings in `way_out` as flags, prints one line without a traceback, and exits with code 2.
    """

    def __init__(self, problem: str, way_out: str = "") -> None:
        super().__init__(problem, way_out)
        self.problem, self.way_out = problem, way_out

    def __str__(self) -> str:
        return f"{self.problem}; {self.way_out}" if self.way_out else self.problem


def nearest(word: str, known: list[str]) -> str:
    """`"; did you mean X?"` with the known word closest to `word`, or the empty string if none is close."""
    completed = sorted((name for name in known if word and name.startswith(word)), key=len)
    matches = completed or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {matches[0]}?" if matches else ""


def is_integer(value: object) -> bool:
    """Whether `value` is an integer of Python or NumPy."""
    return hasattr(value, "__index__")
