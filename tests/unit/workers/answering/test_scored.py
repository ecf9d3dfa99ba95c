"""Which texts stand for an item."""

from typing import Any, NoReturn

import pytest

from app.contracts.task import TaskFormat
from app.models.tasks.formats import READERS
from app.models.tasks.items import Item
from workers.answering.scored import documents_of
from workers.text.documents import TextDocument
from workers.text.overlap import document_overlap

ROWS: dict[TaskFormat, dict[str, Any]] = {
    "hellaswag": {
        "activity_label": "Cooking",
        "ctx_a": "A cook",
        "ctx_b": "stirs",
        "endings": ["the soup", "a hat"],
        "label": 0,
    },
    "arc": {"question": "What is hot?", "choices": {"text": ["Fire", "Ice"], "label": ["A", "B"]}, "answerKey": "A"},
    "mmlu": {"question": "What is hot?", "choices": ["Fire", "Ice"], "answer": "A", "subject": "physics"},
    "gsm8k": {"question": "How many are two and two?", "answer": "They are 4.\n#### 4"},
    "humaneval": {
        "prompt": "def f():\n",
        "test": "def check(f): ...",
        "entry_point": "f",
        "canonical_solution": "    return 1\n",
    },
}


def complain(what: str, hint: str) -> NoReturn:
    raise AssertionError(what, hint)


def found(form: TaskFormat, text: str) -> list[str]:
    item = READERS[form](ROWS[form], "7", complain)
    shared = document_overlap([TextDocument("mine", "text", text=text)], documents_of(form, [item]))
    return sorted({name for _, name in shared})


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("hellaswag", "Cooking: a cook stirs"),
        ("hellaswag", "Cooking: A cook Stirs the soup"),
        ("arc", "What is hot?"),
        ("arc", "what is HOT?  fire"),
        ("arc", "Question: What is hot?\nAnswer: Ice"),
        ("mmlu", "What is hot?"),
        ("mmlu", "What is hot?\nA. Fire\nB. Ice\nAnswer: A"),
        ("mmlu", "What is hot? Fire"),
        ("gsm8k", "How many are two and two?"),
        ("gsm8k", "How many are two and two? They are 4. #### 4"),
        ("humaneval", "def f():\n    return 1"),
    ],
)
def test_a_text_made_of_an_item_is_the_item(form: TaskFormat, text: str) -> None:
    assert found(form, text) == [f"{form}/7"]


@pytest.mark.parametrize(
    ("form", "text"),
    [("arc", "Fire"), ("arc", "What is hot? Water"), ("mmlu", "A. Fire"), ("gsm8k", "They are 4. #### 4"), ("arc", "")],
)
def test_a_part_of_one_is_not(form: TaskFormat, text: str) -> None:
    assert found(form, text) == []


def test_what_is_read_in_pairs_and_what_stands_before_count() -> None:
    item = Item("1", "The cat ", prefix="Complete: ", choices=("sat", "ran"), pairs=(("The cat", " sat down"),))
    texts = {document.text for document in documents_of("t", [item])}
    assert {"The cat sat down", "Complete: The cat ", "Complete: The cat  ran"} <= texts
