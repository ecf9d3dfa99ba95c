"""Whether what is asked of a row is blank. A definition's template hides it: its words are asked all the same."""

from __future__ import annotations

import re
from typing import Any, Final

# Fields of the choices of a row, one each.
_OPTION: Final = re.compile(r"(option|choice|ending|opt|op)[_ ]?[a-z0-9]|[a-eA-E]", re.IGNORECASE)
_MARK: Final = "hemostat"


def asks_nothing(built: Any, doc: dict[str, Any]) -> bool:
    """Whether a text of its row that is asked is blank, and its question that of a row without any: a template's words
    alone."""
    if built.multiple_input or not any(_blank(value) for value in doc.values()):
        return False
    try:
        asked = _words(built, doc)
        if _words(built, {name: _with(value, blank=_MARK) for name, value in doc.items()}) == asked:
            return False  # what is blank is not asked
        return asked == _words(built, {name: _with(value, blank="", text="") for name, value in doc.items()})
    except Exception:  # a definition's own code, which such a row may break
        return False


def _words(built: Any, doc: dict[str, Any]) -> list[str]:
    return str(built.doc_to_text(doc)).split()


def _with(value: object, *, blank: str, text: str | None = None) -> object:
    """A row's value with `blank` for its blank texts and `text`, if not None, for the others; lists, as of choices,
    stay."""
    if isinstance(value, dict):
        return {name: _with(one, blank=blank, text=text) for name, one in value.items()}
    if not isinstance(value, str):
        return value
    return blank if not value.strip() else value if text is None else text


def _blank(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_blank, value.values()))
    return isinstance(value, str) and not value.strip()


def blank_choice(built: Any, doc: dict[str, Any], count: int) -> int | None:
    """The number, from 1, of an empty one among so many texts that are asked, each behind a letter: of a list, or of
    fields that are called option_a and so on."""
    if built.multiple_input:
        return None
    question = str(built.doc_to_text(doc))
    held = [value for one in doc.values() for value in (one.values() if isinstance(one, dict) else (one,))]
    groups = [value for value in held if isinstance(value, list)]
    groups.append([value for name, value in doc.items() if _OPTION.fullmatch(name)])
    for found in groups:
        if len(found) == count and all(isinstance(one, str) and one.strip() in question for one in found):
            blank = [number for number, one in enumerate(found, 1) if not one.strip()]
            if blank:
                return blank[0]
    return None
