"""InputError: what the user gave cannot be used, in one line that says what to do about it."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable


class InputError(Exception):
    """What the user gave cannot be used. The message names the setting or file and how to fix it.

    problem: what is wrong ("runs/a exists"). hint: what to do about it, with settings by their dotted names ("set
    run.resume to continue it, or choose another run.dir"); empty if `problem` says it. `str()` joins both. The command
    line writes the settings in `hint` as flags, prints one line without a traceback, and exits with code 2.
    """

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem, hint)
        self.problem, self.hint = problem, hint

    def __str__(self) -> str:
        return f"{self.problem}; {self.hint}" if self.hint else self.problem


def did_you_mean(word: str, known: list[str]) -> str:
    """`"; did you mean X?"` with the known word closest to `word`, or the empty string if none is close."""
    completed = sorted((name for name in known if word and name.startswith(word)), key=len)
    matches = completed or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {matches[0]}?" if matches else ""


def unknown_choice(kind: str, name: object, choices: Iterable[str]) -> InputError:
    """The error for `name`, which is not a `kind` among `choices`: it suggests the closest choice, or lists all."""
    known = list(choices)
    suggestion = did_you_mean(str(name), known)
    hint = "" if suggestion else f"choose one of {', '.join(known)}"
    return InputError(f"there is no {kind} {name!r}{suggestion}", hint)


def one_line(error: Exception) -> str:
    """The message of `error` in one line of at most 300 characters; its type if it has no message."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def printable(text: str) -> str:
    """`text` with an escape in place of each line end, control code, change of direction and byte that is no text."""
    return "".join(
        character if _is_shown(character) else character.encode("unicode_escape").decode() for character in text
    )


def _is_shown(character: str) -> bool:
    """Whether a character is shown, is a space of any width, or joins letters (in Persian and emoji, say)."""
    return character.isprintable() or character in "\u200c\u200d" or unicodedata.category(character) == "Zs"


def is_integer(value: object) -> bool:
    """Whether `value` is an integer of Python or NumPy."""
    return hasattr(value, "__index__")
