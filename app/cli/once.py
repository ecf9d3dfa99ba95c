"""Options that take one value are given once: the last of several would drop the others, and no one would know."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import typer
from typer.core import TyperCommand, TyperOption
from typer.models import CommandFunctionType

from app.contracts.errors import ErrorCode, HemostatError


class GivenOnce(TyperCommand):
    """A command that refuses an option of one value which is given more than once. Raises INVALID_REQUEST, which names
    the option and its values."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As a command parses them."""
        if not ctx.resilient_parsing:
            self._refuse_repeated(ctx, args)
        return super().parse_args(ctx, args)

    def get_short_help_str(self, limit: int = 0) -> str:
        """The whole first sentence: a list of commands wraps it."""
        return super().get_short_help_str(max(limit, 1000))

    def _refuse_repeated(self, ctx: Any, args: list[str]) -> None:
        parser = self.make_parser(ctx)
        options = [one for one in self.get_params(ctx) if isinstance(one, TyperOption) and _is_single(one)]
        for option in options:
            # Its place in the parser is taken by one that keeps every value.
            listed = copy(option)
            listed.multiple = True
            listed.add_to_parser(parser, ctx)
        found, _, _ = parser.parse_args(list(args))
        for option in options:
            values = found.get(str(option.name)) or []
            if len(values) > 1:
                times = "twice" if len(values) == 2 else f"{len(values)} times"
                told = f"{', '.join(map(str, values[:-1]))} and {values[-1]}"
                raise HemostatError(
                    ErrorCode.INVALID_REQUEST,
                    f"{option.opts[0]} is given {times}, but takes one value: {told}",
                    hint=f"give {option.opts[0]} once",
                )


def _is_single(option: TyperOption) -> bool:
    return not (option.multiple or option.is_flag or option.count)


class Commands(typer.Typer):
    """Commands of this command line: each is a `GivenOnce`."""

    def command(self, *arguments: Any, **settings: Any) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """As typer registers one."""
        return super().command(*arguments, cls=GivenOnce, **settings)
