import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.reports.untrusted import visible, with_breaks


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\nb\tc", "a↵b⇥c"),
        ("\x1b[31m", "⟨U+001B⟩[31m"),
        ("\x00\x7f\x9b", "⟨U+0000⟩⟨U+007F⟩⟨U+009B⟩"),
        ("\u202egnp.exe", "⟨U+202E⟩gnp.exe"),
        ("a\u200bb\ufeff", "a⟨U+200B⟩b⟨U+FEFF⟩"),
        ("مرحبا 世界", "مرحبا 世界"),
        ("👩\u200d🔬", "👩\u200d🔬"),
        ("\ufffd", "\ufffd"),
    ],
)
def test_what_cannot_be_seen_becomes_a_sign(text, shown):
    assert visible(text) == shown


@given(st.text())
def test_nothing_is_left_that_a_terminal_or_a_line_would_obey(text):
    shown = visible(text)
    assert not any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")


def test_lines_of_a_passage_still_break():
    assert with_breaks("a\n\tb") == "a↵\n⇥\tb"
