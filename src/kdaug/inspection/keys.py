"""Keys of views: text from which a view is made again, such as image=3,epoch=0,magnitude=5."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kdaug.errors import InputError

FORMS = "image=N, image=N,epoch=E, image=N,epoch=E,magnitude=M or image=N,op=NAME,level=L"
_READ: dict[str, Callable[[str], int | float | str]] = {
    "image": int, "epoch": int, "magnitude": float, "op": str, "level": float,
}  # fmt: skip
_ALLOWED = ({"image"}, {"image", "epoch"}, {"image", "epoch", "magnitude"}, {"image", "op", "level"})


@dataclass(frozen=True)
class ViewKey:
    """Which view of which training image. With the recipe it determines every pixel.

    image: the row of the image in the training set. Without anything else: the unaugmented image. epoch: the view that
    the student gets in that epoch, under the recipe's policy; magnitude: of the policy, None if it has none.
    op, level: the unaugmented image under this op alone, exactly at this level of the policy's space.
    """

    image: int
    epoch: int | None = None
    magnitude: float | None = None
    op: str | None = None
    level: float | None = None

    def __str__(self) -> str:
        values = {name: value for name, value in vars(self).items() if value is not None}
        return ",".join(f"{name}={_format(value)}" for name, value in values.items())


def parse_key(text: str) -> ViewKey:
    """The key that `str(key)` wrote as `text`. Raises InputError for any other text."""
    values: dict[str, int | float | str] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals or name not in _READ or name in values:
            raise _wrong(text)
        try:
            values[name] = _READ[name](value)
        except ValueError:
            raise _wrong(text) from None
    if set(values) not in _ALLOWED:
        raise _wrong(text)
    return ViewKey(**values)  # type: ignore[arg-type]


def _wrong(text: str) -> InputError:
    return InputError(f"{text!r} is not the key of a view", f"write it as in views.csv: {FORMS}")


def _format(value: float | str) -> str:
    """Text that gives the same number again; whole numbers without a point."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
