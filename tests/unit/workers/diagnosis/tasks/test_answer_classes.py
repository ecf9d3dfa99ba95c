"""Which classes an item's answer holds, on items whose classes are known beforehand."""

from collections import Counter

import numpy as np
import pytest

from app.contracts.task import FileTask, HarnessDefinition
from app.models.tasks.formats import humaneval, mmlu
from app.models.tasks.items import Item
from tests.support.tiny import make_tokenizer
from workers.answering.answers import Answers
from workers.answering.pair import Answered
from workers.diagnosis.tasks.answer_classes import ANSWER_CLASSES, answer_classes

TOKENIZER = make_tokenizer()
HARNESS = HarnessDefinition(task="t", version="0.4.13", task_version=None, shots=2)
CALL = '{"name": "weather", "arguments": {"city": "Rome"}}'
# By answer, the classes that it holds; of rare tokens elsewhere.
KNOWN = {
    "12 miles": {"numbers"},
    "a friend of Peter": {"names"},
    "der Hund und die Katze sind nicht da": {"non_english"},
    '{"a": 1}': {"json_structure", "numbers", "punctuation"},
    "the command `ls`": {"code", "punctuation"},
    "yes, please": {"punctuation"},
    "a pillow": set(),
    CALL: {"json_structure", "tool_name", "tool_arguments", "punctuation"},
}


def choices(question="Question: How far did Anna walk with Peter?\nAnswer:"):
    """The right answer is the second; the wrong one holds a number and tells nothing."""
    return [Item(str(n), question, choices=("77", answer), gold=1) for n, answer in enumerate(KNOWN)]


def answered(items, form="arc", harness=None):
    task = FileTask(source="file", format=form, path="a.jsonl")
    nothing = {"acc": Answers((None,) * len(items), np.zeros(len(items), dtype=np.bool_))}
    return Answered(task, items, "f", nothing, nothing, "acc", shortened=0, harness=harness)


def refuse(detail, expected):
    """What a reader of rows calls for a row that is none: none is expected here."""
    pytest.fail(f"{detail}: {expected}")


def found(items, **options):
    return answer_classes(answered(items, **options), TOKENIZER)


def held(classes, index):
    return set(classes.of_item(index)) - {"rare"}


def test_an_item_has_the_classes_of_its_right_choice():
    classes = found(choices())
    assert (classes.where, classes.note) == ("right_choice", "Looked at is the right choice.")
    assert {answer: held(classes, index) for index, answer in enumerate(KNOWN)} == KNOWN
    assert set(classes.holds) == {one.name for one in ANSWER_CLASSES}
    assert {"template", "answer_start"}.isdisjoint(classes.holds)


def test_rare_goes_by_the_tokens_of_all_answers_together():
    classes = found(choices())
    ids = [TOKENIZER(answer)["input_ids"] for answer in KNOWN]
    counts = Counter(token for row in ids for token in row)
    assert classes.holds["rare"].tolist() == [any(counts[token] <= 2 for token in row) for row in ids]
    assert 0 < classes.holds["rare"].sum() <= len(ids)


def test_letters_stand_for_what_is_behind_them():
    row = {"question": "How far?", "choices": ["far", "12 miles"]}
    rows = [row | {"answer": answer} for answer in ("B", "A")]
    classes = found([mmlu(row, str(n), refuse) for n, row in enumerate(rows)], form="mmlu")
    assert classes.where == "lettered_choice"
    assert classes.holds["numbers"].tolist() == [True, False]


def test_of_generated_answers_it_is_the_files_own():
    items = [Item("0", "Question: 7?\nAnswer:", target="He has none."), Item("1", "Q", target="4 * 2 = 8\n#### 8")]
    classes = found(items, form="gsm8k")
    assert classes.where == "key"
    assert classes.holds["numbers"].tolist() == [False, True]


def test_of_code_it_is_the_reference_solution_and_without_one_the_question():
    row = {"prompt": "def f(x):\n", "test": "def check(f):\n    pass", "entry_point": "f"}
    solutions = ("    return x\n", "    pass\n")
    solved = [humaneval(row | {"canonical_solution": one}, "0", refuse) for one in solutions]
    classes = found(solved, form="humaneval")
    assert classes.where == "solution"
    assert classes.holds["code"].all(), "one line is code, too, where all answers are"
    unsolved = [humaneval(row, "0", refuse), solved[0]]
    classes = found(unsolved, form="humaneval")
    assert classes.where == "question"
    assert classes.note == "Looked at is the question: the file has no right answer to every item as text."


def test_the_same_choices_everywhere_tell_nothing_so_that_the_question_is_looked_at():
    items = [
        Item(str(n), f"Question: {asked}\nAnswer:", choices=("yes", "no"))
        for n, asked in enumerate(("Is 7 odd", "Why"))
    ]
    classes = found(items)
    assert classes.where == "question"
    assert classes.holds["numbers"].tolist() == [True, False]
    assert not classes.holds["punctuation"].any(), "the format's own colons are no part of a question"


@pytest.mark.parametrize(
    ("items", "why"),
    [
        ([Item(str(n), f"{n}?", choices=("yes", "no")) for n in range(2)], "the choices are the same in every item"),
        ([Item(str(n), "?", choices=("A", "B", "C")[: n + 2]) for n in range(2)], "or letters"),
        ([Item("0", "?", target="4"), Item("1", "?", target="")], "no right answer to every item"),
    ],
)
def test_what_a_harness_task_does_not_tell_is_not_guessed(items, why):
    """Its questions cannot be told from the solved examples before them."""
    classes = found(items, harness=HARNESS)
    assert (classes.where, classes.holds) == (None, {})
    assert classes.note.startswith("Nothing was looked at: ")
    assert why in classes.note
    assert found(items).where == "question", "our own readers keep the question apart"
