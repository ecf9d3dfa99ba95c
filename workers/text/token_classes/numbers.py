"""Numbers."""

from __future__ import annotations

import re

from workers.text.token_classes.text import Mask, TokenText

# Digits, and what separates them within a number, a date, a time or a version.
_NUMBER = re.compile(r"\d+(?:[.,:/\-–]\d+)*%?")


def numbers(text: TokenText) -> Mask:
    """Digits of any script, with the separators between them (3.14, 10,000, 09:30, 2031-03-14) and a percent sign."""
    return text.some(match.span() for match in _NUMBER.finditer(text.text))
