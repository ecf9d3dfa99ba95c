"""Regular expressions that come with a checkpoint or an adapter, matched in time linear in the name.

An engine that backtracks, as Python's does, takes minutes for `(a+)+!` on 30 letters, and holds the GIL. Rust's engine,
which pydantic carries, never backtracks; so it knows neither look-around nor back-references.
"""

import re
from functools import lru_cache
from typing import Final

from pydantic_core import SchemaError, SchemaValidator, core_schema

# What a pattern's automaton takes grows with its length: 25 GB were measured for 140,000 characters.
MOST_CHARACTERS: Final = 500


def matches(pattern: str, name: str) -> bool:
    """Whether `name` begins as the pattern says, as with `re.match`. ValueError: the pattern is not valid, longer than
    `MOST_CHARACTERS`, or needs an engine that backtracks."""
    return _compiled(pattern).isinstance_python(name)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> SchemaValidator:
    if len(pattern) > MOST_CHARACTERS:
        raise ValueError(f"it has {len(pattern)} characters, and {MOST_CHARACTERS} are allowed")
    try:
        return SchemaValidator(core_schema.str_schema(pattern=rf"\A(?:{pattern})", regex_engine="rust-regex"))
    except SchemaError as error:
        raise ValueError(str(error).splitlines()[-1].strip()) from error


_PIECE: Final = re.compile(r"\\.|\[\^?\]?|\((?:\?(?:[a-zA-Z-]*[:=!>]|<[=!]|<\w+>))?|\{\d*(?:,\d*)?\}|.", re.DOTALL)
_OFTEN: Final = re.compile(r"[*+]|\{\d*,\}|\{(?:\d*,)?\d{2,}\}")


def may_explode(pattern: str) -> bool:
    """Whether it repeats a group that holds a repeat or a choice: an engine that backtracks may then take time that is
    exponential in the text. For the patterns of tokenizers, which such an engine matches."""
    groups = [False]  # of the open groups: whether each holds one
    closed: bool | None = None  # the same of the group that has just ended
    levels = 0  # of sets of characters
    for piece in _PIECE.findall(pattern):
        if piece[0] == "[":
            levels += 1
        elif levels:
            levels -= piece == "]"
        elif piece[0] == "(":
            groups.append(False)
        elif piece == ")" and len(groups) > 1:
            closed = groups.pop()
            groups[-1] |= closed
            continue
        elif piece[0] in "*+?{|":
            if closed and _OFTEN.fullmatch(piece):
                return True
            groups[-1] = True
        closed = None
    return False
