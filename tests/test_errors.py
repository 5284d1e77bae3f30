"""Text for messages: what would not be shown, or would change what is, is escaped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdaug.errors import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b.jpg", "a b.jpg"),
        ("ünï 猫 👩‍🔬 می‌خواهم", "ünï 猫 👩‍🔬 می‌خواهم"),
        ("narrow\u202fand ideographic\u3000space", "narrow\u202fand ideographic\u3000space"),
        ("two\nlines\r", r"two\nlines\r"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("nul\x00", r"nul\x00"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("bad byte \udcff", r"bad byte \udcff"),
        ("line\u2028separator", r"line\u2028separator"),
    ],
)
def test_unusual_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_the_text_is_one_line_that_can_be_encoded(text: str) -> None:
    shown = printable(text)
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert len(shown.splitlines()) <= 1
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in shown)
    assert printable(shown) == shown
