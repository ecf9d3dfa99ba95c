"""Rows of published data sets as items, with the prompts that EleutherAI's lm-evaluation-harness 0.4 gives them.

Each reader takes a row (a JSON object, or a line of CSV by its header) and a way to complain that knows file and line.
docs/tasks.md lists the fields.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from app.contracts.task import TaskFormat
from app.models.tasks.items import Item

Row = Mapping[str, Any]
# Raises, with what is wrong and what to do.
Complain = Callable[[str, str], NoReturn]
Reader = Callable[[Row, str, Complain], Item]

# By format: fields that a row must have. Others are not looked at.
FIELDS: Final[dict[TaskFormat, tuple[str, ...]]] = {
    "hellaswag": ("activity_label", "ctx_a", "ctx_b", "endings"),
    "arc": ("question", "choices"),
    "mmlu": ("question", "choices"),
    "gsm8k": ("question",),
    "humaneval": ("prompt", "test", "entry_point"),
}
# By format: the field of the answer, told apart from others because a test split often comes without.
ANSWER: Final[dict[TaskFormat, str]] = {
    "hellaswag": "label",
    "arc": "answerKey",
    "mmlu": "answer",
    "gsm8k": "answer",
    "humaneval": "test",
}
LETTERS: Final = "ABCDEFGHIJ"
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def hellaswag(row: Row, id_: str, complain: Complain) -> Item:
    """`activity: beginning`, to be continued by one of the endings."""
    endings = _texts(row, "endings", complain, read=_tidy)
    label = row["label"]
    gold = _place(str(label))
    if not 0 <= gold < len(endings):
        complain(f"label is none of the {len(endings)} endings", "labels count endings from 0")
    beginning = f"{_text(row, 'ctx_a', complain)} {_text(row, 'ctx_b', complain).capitalize()}"
    return Item(
        id_,
        _tidy(f"{_text(row, 'activity_label', complain)}: {beginning}"),
        choices=tuple(endings),
        gold=gold,
    )


def _place(text: str) -> int:
    """The number that a text is, of those that count choices. Any other text gives −1, such
    as a number that is too long, or a digit that makes no number (²)."""
    return int(text) if text.isdecimal() and len(text) < 4 else -1


def _tidy(text: str) -> str:
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def arc(row: Row, id_: str, complain: Complain) -> Item:
    """A question and its answers, labelled by letters or digits."""
    question, choices = row["question"], row.get("choices")
    if isinstance(question, Mapping):  # as AI2 publishes it
        choices = question.get("choices")
        question = question.get("stem")
    if isinstance(choices, list):
        choices = {
            "text": [one.get("text") for one in choices if isinstance(one, Mapping)],
            "label": [one.get("label") for one in choices if isinstance(one, Mapping)],
        }
    if not isinstance(choices, Mapping):
        complain(
            "choices is neither an object of text and label nor a list of them",
            "give two lists, text and label, or a list of objects",
        )
    texts, labels = _texts(choices, "text", complain), [str(label) for label in choices.get("label") or ()]
    if len(labels) != len(texts):
        complain(f"{len(texts)} choices have {len(labels)} labels", "give each choice a label")
    key = str(row["answerKey"])
    if key not in labels:
        complain(f"answerKey is none of the {len(labels)} labels", "name one of the labels")
    asked = _text({"question": question}, "question", complain)
    return Item(id_, f"Question: {asked}\nAnswer:", choices=tuple(texts), gold=labels.index(key))


def mmlu(row: Row, id_: str, complain: Complain) -> Item:
    """A question with lettered answers; the model names the letter."""
    choices = _texts(row, "choices", complain)
    if len(choices) > len(LETTERS):
        complain(f"there are {len(choices)} choices", f"at most {len(LETTERS)} can be lettered")
    answer = str(row["answer"]).strip()
    gold = LETTERS.find(answer) if len(answer) == 1 and answer in LETTERS else _place(answer)
    if not 0 <= gold < len(choices):
        complain(f"answer is none of the {len(choices)} choices", "give an index from 0, or a letter")
    letters = LETTERS[: len(choices)]
    lines = [f"{letter}. {choice}" for letter, choice in zip(letters, choices, strict=True)]
    subject = str(row.get("subject") or "").replace("_", " ").strip()
    about = f"The following are multiple choice questions (with answers) about {subject}.\n\n" if subject else ""
    question = _text(row, "question", complain).strip()
    return Item(
        id_,
        "\n".join([question, *lines, "Answer:"]),
        prefix=about,
        choices=tuple(letters),
        gold=gold,
        meaning=choices[gold],
    )


def gsm8k(row: Row, id_: str, complain: Complain) -> Item:
    """A word problem, answered by free text that ends in a number."""
    answer = _text(row, "answer", complain)
    if not re.search(r"\d", answer.rpartition("#### ")[2]):
        complain("the answer holds no number", "GSM8K's answers end in '#### ' and the number")
    return Item(id_, f"Question: {_text(row, 'question', complain)}\nAnswer:", target=answer)


def humaneval(row: Row, id_: str, complain: Complain) -> Item:
    """The head of a function, to be completed and tested."""
    name = _text(row, "entry_point", complain)
    if not _IDENTIFIER.fullmatch(name):
        complain("entry_point is no name of a function", "it is what the test calls")
    return Item(
        id_,
        _text(row, "prompt", complain),
        delimiter="",
        test=_text(row, "test", complain),
        entry_point=name,
        solution=str(row.get("canonical_solution") or ""),
    )


READERS: Final[dict[TaskFormat, Reader]] = {
    "hellaswag": hellaswag,
    "arc": arc,
    "mmlu": mmlu,
    "gsm8k": gsm8k,
    "humaneval": humaneval,
}


def _text(row: Row, field: str, complain: Complain) -> str:
    value = row.get(field)
    if not isinstance(value, str):
        complain(f"{field} is no text", f"give {field} as a string")
    if not value.strip() and field != "ctx_b":
        complain(f"{field} is empty", "take the item out: a model cannot be asked nothing")
    return value


def _texts(row: Row, field: str, complain: Complain, read: Callable[[str], str] = str) -> list[str]:
    """What `read` makes of each of the texts; none may be left empty."""
    values = row.get(field)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        complain(f"{field} is no list of texts", f"give {field} as a list of strings")
    if len(values) < 2:
        complain(
            f"{field} holds {'one answer' if values else 'no answer'}", "there must be two at least to choose from"
        )
    texts = [read(value) for value in values]
    if any(not text.strip() for text in texts):
        complain(f"{field} holds an empty answer", "take the item out: an empty answer has no probability")
    return texts
