"""Every class, in the order of the report. A new class: its function, and a line here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from workers.text.token_classes.code import code
from workers.text.token_classes.frequency import rare
from workers.text.token_classes.json_text import json_structure, tool_arguments, tool_name
from workers.text.token_classes.language import non_english
from workers.text.token_classes.names import names
from workers.text.token_classes.plain import answer_start, numbers, punctuation, template
from workers.text.token_classes.text import Mask, TokenText

# By the text of a document. `rare` goes by counts over the whole text and is apart.
BY_TEXT: dict[str, Callable[[TokenText], Mask]] = {
    "numbers": numbers,
    "code": code,
    "json_structure": json_structure,
    "tool_name": tool_name,
    "tool_arguments": tool_arguments,
    "template": template,
    "answer_start": answer_start,
    "names": names,
    "punctuation": punctuation,
    "non_english": non_english,
}
RARE = "rare"
# Positions in no class, beside the classes.
NONE = "none"
# What a column of `tokens.parquet` is called that shows whether a token is of a class, before the class's name.
CLASS_COLUMN = "class_"


@dataclass(frozen=True)
class TokenClass:
    """Name, title and definition of a class."""

    name: str
    title: str
    definition: str


def _class(name: str, title: str, function: Callable[..., object]) -> TokenClass:
    return TokenClass(name, title, " ".join((inspect.getdoc(function) or "").split()))


CLASSES: tuple[TokenClass, ...] = (
    _class("numbers", "Numbers", numbers),
    _class("code", "Code", code),
    _class("json_structure", "JSON structure", json_structure),
    _class("tool_name", "Tool names", tool_name),
    _class("tool_arguments", "Tool arguments", tool_arguments),
    _class("template", "Chat template", template),
    _class("answer_start", "First tokens of an answer", answer_start),
    _class("names", "Names", names),
    _class("punctuation", "Punctuation", punctuation),
    _class("non_english", "Other languages", non_english),
    _class(RARE, "Rare tokens", rare),
)
