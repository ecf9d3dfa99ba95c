"""Items of a task, as they are put to a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Item:
    """One item. Of multiple choice it has `choices` and `gold`, the index of the right one; of closed generation a
    `target`; of code a `test` and the name that it calls, `entry_point`.

    `prompt` is all that the model reads before the answer, `delimiter` is between the two. `prefix` (a description,
    solved examples) comes before the prompt and is not shown in reports. `pairs`, one per choice, replace
    prompt and choice: what is read, and what of it is scored. A choice may be in the middle of a sentence.
    `meaning` is what the right choice means where choices are letters. Items of one `passage` are not independent.
    """

    id: str
    prompt: str
    prefix: str = ""
    choices: tuple[str, ...] = ()
    gold: int = 0
    delimiter: str = " "
    target: str = ""
    test: str = ""
    entry_point: str = ""
    solution: str = ""
    pairs: tuple[tuple[str, str], ...] = ()
    meaning: str = ""
    passage: str | None = None

    @property
    def context(self) -> str:
        """Everything before the answer."""
        return self.prefix + self.prompt

    @property
    def asked(self) -> tuple[tuple[str, str], ...]:
        """By choice: what the model reads, and the continuation whose likelihood is taken."""
        return self.pairs or tuple((self.context, f"{self.delimiter}{choice}") for choice in self.choices)

    @property
    def solved(self) -> str:
        """The item with its answer, as an example for others."""
        answer = self.choices[self.gold] if self.choices else self.target or self.solution
        return f"{self.prompt}{self.delimiter}{answer}"


def with_examples(items: Sequence[Item], examples: Sequence[Item]) -> list[Item]:
    """Each item after the solved `examples`, an empty line between any two."""
    if not examples:
        return list(items)
    before = "".join(f"{example.solved}\n\n" for example in examples)
    return [replace(item, prefix=item.prefix + before) for item in items]


def fingerprint(items: Sequence[Item], *, metric: str) -> str:
    """SHA-256, hex, of everything that decides what the items ask and how answers are scored."""
    digest = hashlib.sha256(f"hemostat.task/1 {metric}\n".encode())
    for item in items:
        told = [item.context, item.choices, item.gold, item.delimiter, item.target, item.test, item.entry_point]
        digest.update(json.dumps([*told, item.pairs] if item.pairs else told).encode() + b"\n")
    return digest.hexdigest()
