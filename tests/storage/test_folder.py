"""Checks of folders before work that writes to them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from kdaug import InputError
from kdaug.storage import check_writable_folder


@pytest.mark.parametrize("name", ["", "new", "new/below"])
def test_an_existing_folder_and_new_ones_in_it_are_writable(tmp_path: Path, name: str) -> None:
    check_writable_folder(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/a/b", "link", "link/a"])
def test_a_file_or_broken_link_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path / name.partition('/')[0]))} is not a folder"):
        check_writable_folder(tmp_path / name)


@pytest.mark.parametrize("name", ["", "new/below"])
def test_a_folder_without_write_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # not chmod: root may write everything
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path))} is not a folder that can be written to"):
        check_writable_folder(tmp_path / name)
