"""Links in README and docs/ lead to files that exist, and every guarantee names the tests behind it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def local_links(text: str) -> list[str]:
    """Targets of Markdown links and images, without web addresses and without anchors."""
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    return [target for target in targets if "://" not in target]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_local_links_lead_to_files(page: Path) -> None:
    missing = [link for link in local_links(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert missing == []


def test_every_guarantee_links_to_tests() -> None:
    lines = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| guarantee")]
    assert len(rows) > 20
    for row in rows:
        tests = [link for link in local_links(row) if link.startswith("../tests/")]
        assert tests, f"no test behind: {row}"
