"""The Hugging Face hub: timm's folder with a model card, and its upload."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

from kdaug.errors import InputError, one_line
from kdaug.export.card import model_card
from kdaug.export.check import Comparison
from kdaug.export.reference import Reference
from kdaug.export.source import ExportSource
from kdaug.export.timm_folder import fill_timm_folder
from kdaug.storage import atomic_folder, atomic_write

CARD_NAME = "README.md"


def export_hub(source: ExportSource, reference: Reference, path: Path, repository: str | None) -> Comparison:
    """Writes the folder of `export_timm` with a model card. repository: OWNER/NAME that the card names; None: not yet.

    Raises InputError as `export_timm`.
    """
    with atomic_folder(path) as folder:
        comparison = fill_timm_folder(source, reference, folder)
        atomic_write(folder / CARD_NAME, model_card(source, reference, comparison, repository))
    return comparison


def check_push(repository: str) -> None:
    """Raises InputError if `repository` is not OWNER/NAME, or if huggingface_hub or the user's token is missing."""
    if not re.fullmatch(r"[^/]+/[^/]+", repository):
        raise InputError(f"--push is {repository!r}, but must be OWNER/NAME")
    hub = _huggingface_hub()
    try:
        import_module("huggingface_hub.utils").validate_repo_id(repository)
    except ValueError as error:
        raise InputError(f"--push {repository!r} is not a name on the hub: {one_line(error)}") from None
    if hub.get_token() is None:
        raise InputError(
            "--push needs a token of the Hugging Face hub, but there is none",
            "run: hf auth login, or set the environment variable HF_TOKEN to a token that may write",
        )


def push_to_hub(folder: Path, repository: str) -> str:
    """Uploads the exported `folder` to `repository` (OWNER/NAME) with the user's token, and returns the page's URL.

    The repository is created private if it does not exist. Raises InputError if there is no token, or if the hub cannot
    be reached or refuses the upload; the folder stays.
    """
    check_push(repository)
    try:
        api = _huggingface_hub().HfApi(library_name="kdaug")
        url = str(api.create_repo(repository, private=True, exist_ok=True))
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Export from kdaug")
    except Exception as error:  # of any type, from the network, the hub or its library
        raise InputError(
            f"{folder} was not uploaded to {repository}: {one_line(error)}",
            f"the folder is complete; to upload it later: hf upload --private {repository} {shlex.quote(str(folder))}",
        ) from None
    return url


def _huggingface_hub() -> Any:
    try:
        return import_module("huggingface_hub")
    except ImportError:
        raise InputError("--push needs the package huggingface_hub", "pip install huggingface_hub") from None
