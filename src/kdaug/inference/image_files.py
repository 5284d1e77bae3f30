"""Finds the image files that a user names: files, folders and glob patterns."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdaug.data.folder_index import files_under
from kdaug.data.formats import describe_endings, ending, is_image, is_system_file, is_system_folder


@dataclass(frozen=True)
class FoundImages:
    """paths: each file once, in the order of the arguments. problems: (argument, why it gives no image).

    passed_over: the files in folders that are not images, by ending, for messages; empty if there are none.
    """

    paths: list[Path]
    problems: list[tuple[str, str]]
    passed_over: str


def find_images(arguments: Sequence[str]) -> FoundImages:
    """The images that `arguments` name: files, whatever their ending; folders, with all below them; glob patterns.

    `**` in a pattern stands for any folders. Images of a folder or pattern are sorted. System folders and hidden ones
    are left out, see `kdaug.data.formats`.
    """
    paths, problems, others = list[Path](), list[tuple[str, str]](), Counter[str]()
    for argument in arguments:
        try:
            found = list(_find(argument, others))
        except OSError as error:
            problems.append((error.filename or argument, error.strerror or str(error)))
            continue
        if not found:
            reason = "a folder without images" if os.path.isdir(argument) else "no such file"
            problems.append((argument, reason))
        paths += found
    return FoundImages(list(dict.fromkeys(paths)), problems, describe_endings(others))


def _find(argument: str, others: Counter[str]) -> Iterator[Path]:
    """The images of one argument. `others` counts the files in folders that are not images, by ending."""
    is_pattern = glob.has_magic(argument) and not os.path.lexists(argument)
    for name in _matches(argument) if is_pattern else [argument]:
        if os.path.isdir(name):
            yield from _images_in(Path(name), others)
        elif os.path.lexists(name):
            yield Path(name)


def _matches(pattern: str) -> list[str]:
    """The sorted files and folders that match, without those below system folders that the pattern does not name."""
    named = Path(pattern).parts
    return sorted(
        name
        for name in glob.glob(pattern, recursive=True)
        if not any(is_system_folder(part) for part in Path(name).parent.parts if part not in named)
    )


def _images_in(folder: Path, others: Counter[str]) -> Iterator[Path]:
    def accept(name: str) -> bool:
        if not is_image(name) and not is_system_file(name):
            others[ending(name)] += 1
        return is_image(name)

    return map(Path, sorted(files_under(folder, accept)))
