"""Regular expressions that come with a checkpoint or an adapter, matched in time linear in the name.

An engine that backtracks, as Python's does, takes minutes for `(a+)+!` on 30 letters, and holds the GIL. Rust's engine,
which pydantic carries, never backtracks; so it knows neither look-around nor back-references.
"""

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
