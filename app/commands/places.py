"""How an error names the fields of a body at a prompt: by the option that sets a field, else by its JSON path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from app.commands.options import options_of
from app.contracts.request import JobRequest

Path = tuple[str, ...]
_FIELD: Final = re.compile(r"`([a-z_][a-z0-9_]*(?:\.\w+|\[\d+\])*)`")
_PART: Final = re.compile(r"[^.\[\]]+")


@dataclass(frozen=True)
class Word:
    """What sets a field at the prompt. `parts`: how it names the parts of the field; `none`: it does not set them."""

    name: str
    parts: Literal["none", "whole", "keyed", "steps"] = "whole"

    def of(self, rest: Path) -> str | None:
        """The name of a part of the field, or of the field itself. None if something else sets that part."""
        if not rest or self.parts == "whole":
            return self.name
        if self.parts == "keyed":
            return f"{self.name} {rest[0]}"
        return _step(self.name, *rest) if self.parts == "steps" else None


Words = Mapping[Path, Word]


def words_of_kind(request: type[JobRequest]) -> Words:
    """What sets the fields of a kind's request at the prompt."""
    options = {
        option.path: Word(
            option.flag, "none" if option.sets is not None else option.shape.parts if option.shape else "whole"
        )
        for option in options_of(request)
    }
    return options | {
        ("reference",): Word("REFERENCE"),
        ("candidate",): Word("CANDIDATE"),
        ("candidate", "recipe"): Word("--recipe", "steps"),
        ("knobs",): Word("--knob"),
        ("dry_run",): Word("--dry-run"),
    }


def place_of(pointer: str, words: Words) -> str:
    """What a JSON pointer into a body means at the prompt."""
    path = tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.strip("/").split("/"))
    return _word_of(path, words) or _json_path(path)


def at_prompt(sentence: str, words: Words) -> str:
    """A sentence of the API with the option in place of each field in backticks that has one."""
    return _FIELD.sub(lambda found: _word_of(tuple(_PART.findall(found[1])), words) or found[0], sentence)


def _word_of(path: Path, words: Words) -> str | None:
    for end in range(len(path), 0, -1):
        if word := words.get(path[:end]):
            return word.of(path[end:])
    return None


def _step(option: str, number: str, *field: str) -> str:
    step = f"step {int(number) + 1 if number.isdecimal() else number} of {option}"  # people count from 1
    return f"{step}, {_json_path(field)}" if field else step


def _json_path(path: Path) -> str:
    return "".join(f"[{part}]" if part.isdecimal() else f".{part}" for part in path).removeprefix(".")
