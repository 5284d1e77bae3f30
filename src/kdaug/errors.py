"""The one exception that is the user's to mend; everything else that escapes is a defect of ours."""


class InputError(Exception):
    """What the user gave cannot be used. One sentence: it names the thing, where it stands, and the way out.

    The command line prints it without a traceback and exits with code 2.
    """


def nearest(word: str, known: list[str]) -> str:
    """`"; did you mean X?"` with the known word closest to `word`, or the empty string when none is close."""
    import difflib

    completed = sorted((name for name in known if word and name.startswith(word)), key=len)
    matches = completed or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {matches[0]}?" if matches else ""


def is_integer(value: object) -> bool:
    """Whether `value` is a whole number, Python's or NumPy's, whatever its annotation promised."""
    return hasattr(value, "__index__")
