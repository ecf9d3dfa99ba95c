"""Numbers in the sentences of reports, signed as tables and charts are."""

from typing import Final

MINUS: Final = "\u2212"


def numeral(value: float, form: str = ".3g") -> str:
    """A number by this format specification: `−5.3`; what rounds to zero has no minus."""
    text = f"{value:{form}}"
    if not text.startswith("-"):
        return text
    return f"{MINUS}{text[1:]}" if text.strip("-0.") else text[1:]
