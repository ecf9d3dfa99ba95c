"""docs/reference/reports.md: the fields of every kind's report, block by block, from the models of the code.

A block is a pydantic model. Blocks that several kinds share come once, before those of one kind.
"""

import inspect
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, JsonValue

from app.contracts import report as common
from app.contracts.base import Contract
from app.contracts.diff_report import DiffReport
from app.contracts.distances import DISTANCES
from app.kinds.registry import KINDS

Block = type[BaseModel]
SIMPLE: Final[Mapping[Any, str]] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    NoneType: "null",
    object: "any",
    JsonValue: "any",
}
COMMON: Final = "common"
MEANINGS: Final = {one.name: f"{one.symbol}, {one.unit}: {one.says}" for one in DISTANCES}
ENVELOPE: Final = (common.Report, common.ComparedReport, common.Blocks)


def owners() -> dict[Block, str]:
    """Each block in the order of its first use -> the kind that it belongs to, or `COMMON`."""
    used: dict[Block, list[str]] = {}
    reports: dict[str, Block] = {name: kind.report for name, kind in KINDS.items()}
    for name, model in (reports | {"diff": DiffReport}).items():
        for block in dict.fromkeys(_reached(model)):
            used.setdefault(block, []).append(name)
    return {block: names[0] if len(names) == 1 else COMMON for block, names in used.items()}


def _reached(block: Block) -> Iterator[Block]:
    """It, its bases and the blocks of its fields, at every depth. No block holds itself."""
    yield block
    for base in bases(block):
        yield from _reached(base)
    for name in own(block):
        for part in _blocks(block.model_fields[name].annotation):
            yield from _reached(part)


def _blocks(annotation: Any) -> Iterator[Block]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    elif annotation is not JsonValue:
        for part in get_args(annotation):
            yield from _blocks(part)


def bases(block: Block) -> list[Block]:
    """The blocks whose fields it has, too."""
    return [base for base in block.__bases__ if issubclass(base, BaseModel) and base not in (BaseModel, Contract)]


def own(block: Block) -> list[str]:
    """Names of the fields that no base has in the same form."""
    inherited = [base.model_fields for base in bases(block)]
    return [
        name
        for name, field in block.model_fields.items()
        if not any(name in fields and fields[name].annotation == field.annotation for fields in inherited)
    ]


class Headings:
    """Headings of blocks and links to them. If two blocks have one name, the kind tells them apart."""

    def __init__(self, blocks: Mapping[Block, str]) -> None:
        self._blocks = blocks
        self._names = Counter(block.__name__ for block in blocks)

    def of(self, block: Block) -> str:
        """The heading."""
        name = block.__name__
        return name if self._names[name] == 1 else f"{name} of {self._blocks[block]}"

    def link(self, block: Block) -> str:
        """A link to the heading."""
        heading = self.of(block)
        return f"[{heading}](#{heading.lower().replace(' ', '-')})"

    def type(self, annotation: Any) -> str:
        """What values an annotation allows, in words."""
        if annotation in SIMPLE:
            return SIMPLE[annotation]
        if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
            return self.link(annotation)
        of = get_args(annotation)
        if get_origin(annotation) is Literal:
            return ", ".join(f"`{one}`" for one in of)
        if get_origin(annotation) in (Union, UnionType):
            return " or ".join(self.type(one) for one in of)
        return self._generic(get_origin(annotation), of)

    def _generic(self, origin: Any, of: tuple[Any, ...]) -> str:
        if origin is Annotated:
            return self.type(of[0])
        if origin is tuple:
            each = [self.type(one) for one in of if one is not Ellipsis]
            return f"list of: {each[0]}" if Ellipsis in of else f"[{', '.join(each)}]"
        if origin is dict:
            return f"object of: {self.type(of[1])}"
        raise TypeError(f"no words for {origin}")


def rows(block: Block, headings: Headings) -> list[tuple[str, str, str]]:
    """Name, type and meaning of each of its own fields."""
    fields = ((name, block.model_fields[name]) for name in own(block))
    known = MEANINGS if set(MEANINGS) <= set(block.model_fields) else {}
    return [
        (f"`{field.alias or name}`", headings.type(field.annotation), field.description or known.get(name, ""))
        for name, field in fields
    ]


def words(block: Block) -> str:
    """Its docstring; of a report, which is one of a kind, that of its module."""
    text = inspect.getdoc(block) or ""
    if block is DiffReport or (issubclass(block, common.Report) and block not in ENVELOPE):
        text = (sys.modules[block.__module__].__doc__ or "").partition("\n")[2] or text
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n")).strip()
