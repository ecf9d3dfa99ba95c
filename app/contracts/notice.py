"""What a reader of a report must know: a code for programs, facts, and the sentence that is made of both.

A room lists its notices in one `Notices`: the name of a member is the code, its value the text. The text has facts in
braces, with a format: `{tokens:,}` is Python's, and these are ours:

- `{documents:#document}`: the number and its noun, `1 document` or `12 documents`;
- `{documents:is|are}`: the first word for one, the second for any other number;
- `{names:4}`: at most so many of several names; without a format all of them;
- `{names: (*)}`: the names in place of the asterisk; nothing if there are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from string import Formatter
from typing import Any, Final

from pydantic import Field

from app.contracts.base import Contract

Fact = int | float | str | tuple[int | str, ...]
_MINUS: Final = "\u2212"


class Notice(Contract):
    """A fact that limits what a report shows."""

    code: str = Field(pattern="^[a-z][a-z0-9_]*$", description="what it is, for programs; docs/reference/notices.md")
    text: str = Field(description="the notice in plain words")
    facts: dict[str, Fact] = Field(default={}, description="the values in `text`, by name")

    def __hash__(self) -> int:
        """Of a frozen model, but for the facts: a dict has no hash."""
        return hash((self.code, self.text))


class Notices(Enum):
    """The notices of a room. A member with its facts makes a `Notice`."""

    @property
    def code(self) -> str:
        """What programs know it by."""
        return self.name.lower()

    @classmethod
    def of(cls, code: str, facts: Mapping[str, Fact]) -> Notice:
        """The notice of this code. Raises KeyError for a code that the room does not have."""
        return cls[code.upper()](**facts)

    def __call__(self, **facts: Fact) -> Notice:
        """The notice of these facts. Raises KeyError if the text has a fact more."""
        return Notice(code=self.code, text=self.written(facts), facts=facts)

    def written(self, facts: dict[str, Fact]) -> str:
        """The text with its facts."""
        return str(_SENTENCES.vformat(self.value, (), facts))


class _Sentences(Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec.startswith("#"):
            return f"{value:,} {format_spec[1:]}{'' if value == 1 else 's'}"
        if "|" in format_spec:
            one, _, many = format_spec.partition("|")
            return one if value == 1 else many
        if isinstance(value, tuple):
            value, format_spec = _joined(value, format_spec)
        if "*" in format_spec:
            return format_spec.replace("*", value) if value else ""
        text = format(value, format_spec)
        return text.replace("-", _MINUS) if isinstance(value, float) else text


def _joined(names: tuple[int | str, ...], format_spec: str) -> tuple[str, str]:
    """Names as one text, and what is left of the format."""
    most = int(format_spec) if format_spec.isdecimal() else len(names)
    rest = len(names) - most
    text = ", ".join(map(str, names[:most])) + (f" and {rest} more" if rest > 0 else "")
    return text, "" if format_spec.isdecimal() else format_spec


_SENTENCES: Final = _Sentences()
