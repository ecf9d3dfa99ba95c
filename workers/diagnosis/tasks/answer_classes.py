"""Which token classes the right answer of each item holds.

What is looked at is the same for all items of a task: the right choice. Where choices are letters, what the right one
means. Of generated answers the file's right answer, or its reference solution; else the question. Each text is
alone, as an answer does: prose around it has no part in whether it is code, JSON or another language.

Names: I items, N tokens of all texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from app.contracts.task import FileTask
from app.kinds.tasks.report import AnswerText
from app.models.tasks.items import Item
from workers.answering.pair import Answered
from workers.answering.scored import bare_question
from workers.text.callbacks import CheckCancelled, never_cancelled
from workers.text.token_classes.catalogue import BY_TEXT, CLASSES, RARE, TokenClass
from workers.text.token_classes.code import DOMAIN
from workers.text.token_classes.frequency import rare
from workers.text.token_classes.names import lexicon_of
from workers.text.token_classes.text import Mask, TokenText
from workers.text.tokenization import Ids, encode_with_offsets

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# No chat template is applied, and every answer has first tokens.
_APART: Final = frozenset({"template", "answer_start"})
_RARE_HERE: Final = "Tokens that occur at most twice in the texts that were looked at, those of this task together."
# Of which an answer can hold a token, in the order of the catalogue.
ANSWER_CLASSES: Final = tuple(
    TokenClass(one.name, one.title, _RARE_HERE) if one.name == RARE else one
    for one in CLASSES
    if one.name not in _APART
)
_NOTES: Final[dict[AnswerText, str]] = {
    "right_choice": "the right choice",
    "lettered_choice": "what the right letter means",
    "key": "the file’s right answer, with its working where the file has it",
    "solution": "the file’s reference solution",
}
_SAME: Final = "the choices are the same in every item, or letters"
_NO_KEY: Final = "the file has no right answer to every item as text"


@dataclass(frozen=True)
class AnswerClasses:
    """`holds` (I,) by class: the items whose text holds a token of it; empty if `where` is None, and `note` then
    says why."""

    where: AnswerText | None
    note: str
    holds: dict[str, Mask]

    def of_item(self, index: int) -> list[str]:
        """Names of the classes that an item's text holds."""
        return [name for name, mask in self.holds.items() if mask[index]]


def answer_classes(
    one: Answered, tokenizer: PreTrainedTokenizerBase, *, check_cancelled: CheckCancelled = never_cancelled
) -> AnswerClasses:
    """The classes of a task's items."""
    where, note = _where(one)
    if where is None:
        return AnswerClasses(None, note, {})
    lexicon = lexicon_of(_said(one.items, where, check_cancelled))
    code = isinstance(one.task, FileTask) and one.task.format == "humaneval"
    read: list[tuple[Ids, TokenText]] = []
    for item in one.items:
        check_cancelled()
        text = _text(item, where)
        ids, offsets = encode_with_offsets(tokenizer, text, check_cancelled=check_cancelled)
        read.append((ids, TokenText(text, offsets, DOMAIN if code else "text", lexicon=lexicon)))
    masks = _masks(read, check_cancelled)
    item_N = np.repeat(np.arange(len(read)), [len(ids) for ids, _ in read])
    holds = {
        name: np.bincount(item_N, weights=mask_N, minlength=len(read)).astype(np.bool_)
        for name, mask_N in masks.items()
    }
    return AnswerClasses(where, note, holds)


def _where(one: Answered) -> tuple[AnswerText | None, str]:
    """What is looked at, and that in words; of a task of the harness, whose questions cannot be distinguished from its
    solved examples, nothing where its answers have no text."""
    where: AnswerText | None = None
    if one.items[0].choices:
        without = _SAME
        if all(item.meaning.strip() for item in one.items):
            where = "lettered_choice"
        elif _telling(one.items):
            where = "right_choice"
    else:
        without = _NO_KEY
        if all(item.target.strip() for item in one.items):
            where = "key"
        elif all(item.solution.strip() for item in one.items):
            where = "solution"
    if where is not None:
        return where, f"Looked at is {_NOTES[where]}."
    if one.harness is not None:
        return None, f"Nothing was looked at: {without}."
    return "question", f"Looked at is the question: {without}."


def _telling(items: Sequence[Item]) -> bool:
    """Whether choices have a text of their own: not the same ones in every item, nor letters."""
    if len({item.choices for item in items}) == 1 and len(items) > 1:
        return False
    return any(len(choice.strip(" ().")) > 1 for item in items for choice in item.choices)


def _text(item: Item, where: AnswerText) -> str:
    return {
        "right_choice": item.choices[item.gold] if item.choices else "",
        "lettered_choice": item.meaning,
        "key": item.target,
        "solution": item.solution,
        "question": bare_question(item),
    }[where]


def _said(items: Sequence[Item], where: AnswerText, check_cancelled: CheckCancelled) -> Iterator[str]:
    """Everything that distinguishes a name from the first word of a sentence: questions, right answers behind them, and
    all other choices."""
    for item in items:
        check_cancelled()
        answer = "" if where == "question" else _text(item, where)
        yield f"{item.prompt}{item.delimiter}{answer}"
        yield from item.choices


def _masks(read: Sequence[tuple[Ids, TokenText]], check_cancelled: CheckCancelled) -> dict[str, Mask]:
    """(N,) by class."""
    found: dict[str, list[Mask]] = {one.name: [] for one in ANSWER_CLASSES if one.name != RARE}
    for _, text in read:
        check_cancelled()
        for name, masks in found.items():
            masks.append(BY_TEXT[name](text))
    every = np.concatenate([ids for ids, _ in read])
    _, token, counts = np.unique(every, return_inverse=True, return_counts=True)
    return {name: np.concatenate(masks) for name, masks in found.items()} | {RARE: rare(counts[token])}
