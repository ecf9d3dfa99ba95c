"""What regular expressions and grammars cost to compile, from their text alone: a rough estimate.

In milliseconds of a processor, as xgrammar 0.2.8 took for a vocabulary of 49,152: a place of any character 7.5, of a
narrow class 2.5. What is repeated counts each time, up to 128: beyond that xgrammar counts instead. n parts in a row
that may all be empty take n³. Nested repeats multiply here, though xgrammar does better with some.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

_LITERAL, _NARROW, _ANY, _REFERENCE, _PATTERN = 0.05, 2.5, 7.5, 5.0, 3.0
_EMPTY_RUN: Final = 0.12
_UNROLLED: Final = 128
_PASSES: Final = 8  # over rules that refer to each other
# What is not closed goes to the end of its text: each character is looked at once.
_SET: Final = r"\[\^?\]?(?:\\.|[^\]\\])*\]?"
_NARROW_SET: Final = re.compile(r"\[(?:[A-Za-z0-9]-[A-Za-z0-9]|[\w.-]|\\[dw.-])++\]", re.ASCII)
_REPEAT: Final = r"\{\d{0,9}(?:,\d{0,9})?\}|[*+?]"
_REGEX: Final = re.compile(rf"(?s:\\.)|{_SET}|\(\?(?:[:=!]|<[=!]|P?<\w+>)|{_REPEAT}|(?s:.)")
_RULE: Final = re.compile(r"^[ \t]*[?!]?([A-Za-z_][\w-]*)(?:\.\d+)?[ \t]*(?:::=|:)", re.MULTILINE | re.ASCII)
_GRAMMAR: Final = re.compile(
    rf'"(?:\\.|[^"\\\n])*"?|/(?:\\.|[^/\\\n])*/?|{_SET}|[A-Za-z_][\w-]*|{_REPEAT}|#[^\n]*|[()|]|(?s:.)', re.ASCII
)


class Part(NamedTuple):
    """A piece of an expression. `empties`: parts of it in a row that may all be empty; 0: it is never empty."""

    cost: float
    empties: int = 0


_EMPTY: Final = Part(0.0, 1)


@dataclass
class _Group:
    """What was read between two parentheses so far."""

    cost: float = 0.0
    run: int = 0  # parts in a row, up to the last one, that may be empty
    widest: int = 0  # such a run of an alternative that may be empty as a whole
    empty: bool = True  # whether the alternative may be, so far
    last: Part | None = None

    def settle(self) -> None:
        """The last part will not be repeated."""
        part, self.last = self.last, None
        if part is None:
            return
        self.run = self.run + part.empties if part.empties else 0
        self.empty = self.empty and part.empties > 0
        self.cost += part.cost + _EMPTY_RUN * (self.run**3 - max(0, self.run - part.empties) ** 3)

    def alternative(self) -> None:
        """Another one begins, or the group ends."""
        self.settle()
        if self.empty:
            self.widest = max(self.widest, self.run, 1)
        self.run, self.empty = 0, True

    def whole(self) -> Part:
        """The group as a part of the one around it."""
        self.alternative()
        return Part(self.cost, self.widest)


def regex_cost(text: str) -> float:
    """Of a regular expression."""
    return _PATTERN + _read(_regex_parts(text)).cost


def grammar_cost(text: str) -> float:
    """Of a grammar in EBNF or in Lark's form. Infinite if its rules refer to each other in too long a circle."""
    heads = list(_RULE.finditer(text))
    ends = [*(head.start() for head in heads[1:]), len(text)]
    bodies = [(head[1], text[head.end() : end]) for head, end in zip(heads, ends, strict=False)]
    known: dict[str, int] = {}
    for _ in range(_PASSES):
        found = [(name, _read(_grammar_parts(body, known))) for name, body in bodies]
        after = {name: part.empties for name, part in found if part.empties}
        if after.keys() == known.keys():
            return sum(part.cost for _, part in found)
        known = after
    return math.inf


def _read(parts: Iterable[Part | str]) -> Part:
    groups = [_Group()]
    for part in parts:
        group = groups[-1]
        if isinstance(part, Part):
            group.settle()
            group.last = part
        elif part == "(":
            group.settle()
            groups.append(_Group())
        elif part == ")":
            if len(groups) > 1:
                whole = groups.pop().whole()
                groups[-1].last = whole
        elif part == "|":
            group.alternative()
        elif group.last is not None:
            group.last = _repeated(group.last, part)
    while len(groups) > 1:  # a parenthesis is missing: the replica says so
        whole = groups.pop().whole()
        groups[-1].last = whole
    return groups[0].whole()


def _repeated(part: Part, repeat: str) -> Part:
    if repeat in "*+?":
        least, most = (1, 1) if repeat == "+" else (0, 1)
    else:
        low, comma, high = repeat.strip("{}").partition(",")
        least = int(low or 0)
        most = int(high) if high else least + 1 if comma else least
    empties = part.empties if least else max(1, part.empties)
    return Part(part.cost * max(1, min(most, _UNROLLED)), empties)


def _regex_parts(text: str) -> Iterable[Part | str]:
    for word in _REGEX.findall(text):
        if word[0] == "(":
            yield "("
        elif word in ")|" or word[0] in "*+?" or (word[0] == "{" and len(word) > 1):
            yield word
        elif word not in "^$":
            yield Part(_place(word))


def _place(word: str) -> float:
    if word == "." or word[0] == "[" or word[:1] == "\\":
        if word in {r"\d", r"\w", r"\s"} or _NARROW_SET.fullmatch(word):
            return _NARROW
        return _ANY if word == "." or word[0] == "[" or word[1:2] in "DWSpP" else _LITERAL
    return _LITERAL


def _grammar_parts(body: str, empty: Mapping[str, int]) -> Iterable[Part | str]:
    """`empty`: the rules that may be empty, with their `Part.empties`."""
    for word in _GRAMMAR.findall(body):
        if word[0] == "#" or word.isspace():
            continue
        if word in "()|" or word[0] in "*+?" or (word[0] == "{" and len(word) > 1):
            yield word
        elif word[0] == '"':
            yield Part(_LITERAL * len(word)) if len(word) > 2 else _EMPTY
        elif word[0] == "/":
            yield _read(_regex_parts(word[1:-1]))
        elif word[0] == "[":
            yield Part(_place(word))
        else:
            yield Part(_REFERENCE, empty.get(word, 0))
