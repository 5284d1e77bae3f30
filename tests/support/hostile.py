"""Pickles that run a command when they are loaded, and what tests load them as."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdaug.data import ArrayImages, Dataset


@dataclass(frozen=True)
class Command:
    """Unpickled, this runs a shell command."""

    line: str

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.line,)


class CommandOnBuild:
    """Unpickled, its __setstate__ runs a shell command."""

    def __init__(self, line: str) -> None:
        self.line = line

    def __getstate__(self) -> str:
        return self.line

    def __setstate__(self, line: str) -> None:
        os.system(line)


class Opcodes:
    """Pickles that run the command `line`, by the opcodes that do it."""

    NAMES = ("reduce", "reduce in nested dicts", "stack global", "build with setstate", "inst", "obj", "eval")

    def __init__(self, line: str) -> None:
        self._line = line

    def named(self, name: str) -> bytes:
        text = _text(self._line)
        match name:
            case "reduce":
                return b"\x80\x02cos\nsystem\n" + text + b"\x85R."
            case "reduce in nested dicts":
                return pickle.dumps({"state_dict": {"w": {"w": Command(self._line)}}}, protocol=2)
            case "stack global":
                return b"\x80\x04\x8c\x02os\x8c\x06system\x93" + text + b"\x85R."
            case "build with setstate":
                return pickle.dumps(CommandOnBuild(self._line), protocol=2)
            case "inst":
                return b"(" + text + b"ios\nsystem\n."
            case "obj":
                return b"(cos\nsystem\n" + text + b"o."
            case "eval":
                return b"\x80\x02cbuiltins\neval\n" + _text(f"__import__('os').system({self._line!r})") + b"\x85R."
        raise ValueError(name)


def _text(text: str) -> bytes:
    """Opcode BINUNICODE."""
    encoded = text.encode()
    return b"X" + len(encoded).to_bytes(4, "little") + encoded


def one_image() -> Dataset:
    """A dataset of one image, for which a teacher is loaded."""
    images, half = ArrayImages(np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1, np.int64)), (0.5,) * 3
    return Dataset("one", ("a", "b"), images, images, (8, 8), half, half, "one")
