"""Text that others wrote (tokens, document ids, aliases) made safe to look at.

Escaping for HTML is the template's work. Here characters without a picture are shown as signs: control characters (a
terminal would obey them) and Unicode's invisible direction marks (they would reorder a line).
"""

from __future__ import annotations

import unicodedata

# Direction marks, zero-width characters but the joiners (scripts and emoji need those), line and paragraph separators.
_INVISIBLE = {
    *"\u200b\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff\u00ad",
}


def visible(text: str) -> str:
    """`text` with every control or invisible character replaced by a sign, such as `⟨U+202E⟩`.

    Newlines and tabs become `↵` and `⇥`.
    """
    return "".join(map(_sign, text))


def with_breaks(text: str) -> str:
    """As `visible`, but lines still break after each `↵`, and a tab keeps its width after its `⇥`."""
    return visible(text).replace("↵", "↵\n").replace("⇥", "⇥\t")


def _sign(character: str) -> str:
    if character == "\n":
        return "↵"
    if character == "\t":
        return "⇥"
    if character in _INVISIBLE or unicodedata.category(character) in {"Cc", "Cs"}:
        return f"⟨U+{ord(character):04X}⟩"
    return character
