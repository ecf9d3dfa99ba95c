"""What is wrong with a `hemostat …` of a page, as the command line itself reads it. Nothing is run.

A line of a block is read whole. Inline code may also be a name alone, and may leave values out: `…`.
"""

import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter, ValidationError
from typer._click.core import Command
from typer._click.exceptions import ClickException, MissingParameter
from typer.core import TyperGroup

from app.commands.recipes import parse_recipe
from app.contracts.errors import HemostatError
from app.kinds.registry import KINDS
from app.recipes.recipe import Recipe
from deploy.reference import hemostat

ELSEWHERE: Final = (">", "|", "&&", ";")  # what follows is the shell's
LEFT_OUT: Final = "…"
_IN_BLOCK: Final = re.compile(r"(?:^ *|^.* api )hemostat (.+)|\$\(hemostat (.+?)\)", re.MULTILINE)
_INLINE: Final = re.compile(r"`hemostat ([^`]+)`")
_PLACEHOLDER: Final = re.compile(r"\[?[A-Z][A-Z_|]*\]?")


def in_block(block: str) -> list[str]:
    """What follows `hemostat` in each line of a block of code."""
    return ["".join(found) for found in _IN_BLOCK.findall(block.replace("\\\n", " "))]


def inline(prose: str) -> list[str]:
    """What follows `hemostat` in each piece of inline code."""
    return [written.replace("\\|", "|") for written in _INLINE.findall(prose)]


def arguments_of(line: str) -> list[str]:
    """Words as a shell splits them, up to a redirection."""
    words = shlex.split(line, comments=True)
    return words[: next((n for n, word in enumerate(words) if word in ELSEWHERE), None)]


def submits(line: str) -> bool:
    """Whether it asks for a job as it is written: no name alone, and nothing to fill in."""
    command, *rest = arguments_of(line)
    return command in KINDS and bool(rest) and not any(_to_fill_in(word) for word in rest)


def _to_fill_in(word: str) -> bool:
    return LEFT_OUT in word or _PLACEHOLDER.fullmatch(word) is not None


def refused(line: str, *, whole: bool = True) -> Iterator[str]:
    """What the command line says against it. Not `whole`: inline code, of which values may be left out."""
    written = arguments_of(line)
    command, rest = _command(written)
    if isinstance(command, TyperGroup):
        if whole or (rest and not _PLACEHOLDER.fullmatch(rest[0])):
            yield "no such command"
        return
    values = [word for word in rest if not word.startswith("-")]
    partial = not whole and (not values or any(LEFT_OUT in word for word in values))
    given = rest if whole else ["1" if _PLACEHOLDER.fullmatch(word) else word for word in rest if word != LEFT_OUT]
    try:
        recipe = _recipe(written[0], command.make_context(line, given).params)
    except MissingParameter as error:
        if not partial:
            yield error.format_message()
        return
    except (ClickException, HemostatError) as error:
        yield error.format_message() if isinstance(error, ClickException) else str(error)
        return
    yield from invalid(TypeAdapter(Recipe), recipe)


def _recipe(command: str, given: dict[str, Any]) -> list[Any]:
    """The steps that a command is given; none if its knobs are yet to be written in, or they are in a reader's file.
    Raises INVALID_REQUEST."""
    steps = given.get("recipe") or []
    return [] if command in ("sweep", "surface") or any(step.startswith("@") for step in steps) else parse_recipe(steps)


def _command(words: list[str]) -> tuple[Command, list[str]]:
    """The command, or the group, that the first words name, and the other words."""
    command: Command = _hemostat()
    for place, word in enumerate(words):
        if not isinstance(command, TyperGroup) or word not in command.commands:
            return command, words[place:]
        command = command.commands[word]
    return command, []


@cache
def _hemostat() -> TyperGroup:
    return hemostat()


def invalid(model: type[BaseModel] | TypeAdapter[Any], value: Any) -> Iterator[str]:
    """What a model says against a value."""
    adapter = model if isinstance(model, TypeAdapter) else TypeAdapter(model)
    try:
        adapter.validate_json(json.dumps(value))
    except ValidationError as error:
        yield str(error)
