"""Which files are images: extensions, optional Pillow plugins, and the files and folders that operating systems add."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from PIL import Image

_EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .pbm .pnm .avif .jp2 .tga .ico".split()
)
_SYSTEM_FOLDERS = frozenset(
    (
        *("@eadir", "@tmp", "@sharebin", "@sharesnap", "@synoresource", "#recycle", "#snapshot"),  # Synology
        *("@recycle", "@recently-snapshot"),  # QNAP
        *("__macosx", "lost+found", "__pycache__"),
        *("$recycle.bin", "recycler", "system volume information", "found.000"),  # Windows
    )
)
_SYSTEM_FILES = frozenset(("thumbs.db", "thumbs.db:encryptable", "ehthumbs.db", "desktop.ini", "icon\r"))
_ENDINGS_NAMED = 5


@dataclass(frozen=True)
class _Plugin:
    """A package that lets Pillow open more formats. register: its function to call; None: importing it is enough."""

    module: str
    package: str
    extensions: tuple[str, ...]
    register: str | None


_PLUGINS = (
    _Plugin("pillow_heif", "pillow-heif", (".heic", ".heif", ".hif"), "register_heif_opener"),
    _Plugin("pillow_avif", "pillow-avif-plugin", (".avif",), None),
)


@cache
def readable_extensions() -> frozenset[str]:
    """The extensions, in lower case with their dot, of files that are read as images.

    Registers the Pillow plugins that are installed, in this process: a process that decodes images must call it.
    """
    extensions = set(_EXTENSIONS & Image.registered_extensions().keys())
    for plugin in _PLUGINS:
        if extensions.issuperset(plugin.extensions):
            continue
        try:
            module = import_module(plugin.module)
        except ImportError:
            continue
        if plugin.register is not None:
            getattr(module, plugin.register)()
        extensions.update(plugin.extensions)
    return frozenset(extensions)


def is_image(name: str) -> bool:
    """Whether a file name is that of an image that can be read."""
    return ending(name) in readable_extensions() and not name.startswith(".")


def ending(name: str) -> str:
    """The extension of a file name in lower case, with its dot; empty if it has none."""
    return os.path.splitext(name)[1].lower()


def is_hidden(name: str) -> bool:
    """Whether a name starts with a dot. One that starts with two dots is not hidden: a class may have it."""
    return name.startswith(".") and not name.startswith("..")


def is_system_folder(name: str) -> bool:
    """Whether a folder is hidden, or made by an operating system or a storage device: it holds no images of a class."""
    return is_hidden(name) or name.lower() in _SYSTEM_FOLDERS


def is_system_file(name: str) -> bool:
    """Whether a file is hidden or made by an operating system."""
    return name.startswith(".") or name.lower() in _SYSTEM_FILES


def describe_endings(counts: Mapping[str, int]) -> str:
    """The number of files by ending, most first, with the package that reads it: "100 .heic: install pillow-heif"."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{count:,} {_describe_ending(name)}" for name, count in ordered[:_ENDINGS_NAMED]]
    if rest := sum(count for _, count in ordered[_ENDINGS_NAMED:]):
        parts.append(f"{rest:,} with other endings")
    return "; ".join(parts)


def _describe_ending(name: str) -> str:
    package = next((plugin.package for plugin in _PLUGINS if name in plugin.extensions), None)
    return f"{name}: install {package}" if package else name or "without an ending"
