"""Numbers in the sentences of reports, signed as tables and charts are, and counts with their nouns."""

from typing import Final

MINUS: Final = "\u2212"
_SUPERSCRIPTS: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_WRITTEN_OUT: Final = 9  # powers of ten up to which a number is not told by its power


def counted(number: int, noun: str) -> str:
    """`1 document`, `12,345 documents`: of nouns that take an s, as the page has it."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def numeral(value: float, form: str = ".3g") -> str:
    """A number by this format specification: `−5.3`; what rounds to zero has no minus, and what Python writes with an
    exponent is `1,230` or `6×10⁻⁷`, as tables and charts have it."""
    text = f"{value:{form}}".rstrip(".")  # of an alternate form without decimals
    mantissa, letter, power = text.partition("e")
    if letter and 0 <= int(power) < _WRITTEN_OUT:
        text = f"{'+' if mantissa.startswith('+') else ''}{float(text):,.0f}"
    elif letter:
        text = f"{mantissa}×10{str(int(power)).translate(_SUPERSCRIPTS)}"
    if not text.startswith("-"):
        return text
    return f"{MINUS}{text[1:]}" if text.strip("-0.") else text[1:]
