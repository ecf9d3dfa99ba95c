"""Rows that a definition takes in its own order, and solved examples that must not hold what is asked."""

import pytest

from app.contracts.errors import HemostatError
from app.models.tasks.harness import HarnessRows
from tests.support.harness_tasks import SUMS, WINOGRANDE, Row, prepared, task
from workers.diagnosis.tasks.harness.running import Harnessed, prepare
from workers.process.handler import JobCancelled

GPQA = [
    {"Question": f"Which {n} is it?", "Correct Answer": f"right {n}"}
    | {f"Incorrect Answer {place}": f"wrong {n} {place}" for place in (1, 2, 3)}
    for n in range(6)
]


def test_an_item_has_the_number_of_its_row_where_a_definition_leaves_others_out() -> None:
    rows = [
        {
            "category": "law" if number < 3 else "biology",
            "question": f"Q{number}",
            "options": list("abcdefghij"),
            "answer": "A",
            "answer_index": 0,
            "question_id": number,
            "cot_content": "",
            "src": "s",
        }
        for number in range(6)
    ]
    examples = [
        rows[0] | {"category": "biology", "question": "other", "cot_content": "A: Let's think. The answer is (A)."}
    ]
    asked = prepared("mmlu_pro_biology", rows, examples, shots=1)
    assert [item.id for item in asked.items] == ["4", "5", "6"]


def test_the_same_question_among_the_examples_is_found_whatever_else_the_row_says() -> None:
    same = [row | {"id": number + 100} for number, row in enumerate(SUMS)]
    rows = [row | {"id": number} for number, row in enumerate(SUMS)]
    with pytest.raises(HemostatError, match="stands among what solved examples are taken from") as refused:
        prepared("gsm8k", rows, same, shots=3)
    assert refused.value.pointer == "/tasks/0/examples"


@pytest.mark.parametrize("name", ["gpqa_main_n_shot", "gpqa_main_cot_n_shot"])
@pytest.mark.parametrize("seed", range(3))
def test_a_question_into_which_choices_are_shuffled_is_found_among_the_examples(name: str, seed: int) -> None:
    def asked(rows: list[Row], examples: list[Row]) -> Harnessed:
        found = HarnessRows(rows, examples)
        wanted = task(name, examples="examples.jsonl", shots=3)
        return prepare(wanted, found, seed=seed, pointer="", check_cancelled=lambda: None)

    with pytest.raises(HemostatError, match="stands among what solved examples are taken from"):
        asked(GPQA[:3], [row | {"Record ID": n} for n, row in enumerate(GPQA)])
    assert len(asked(GPQA[:2], GPQA[2:]).items) == 2


def test_an_item_that_stands_twice_is_found_among_the_examples_too() -> None:
    with pytest.raises(HemostatError, match="stands among what solved examples are taken from"):
        prepared("gpqa_main_n_shot", [GPQA[0], *GPQA[:2]], GPQA, shots=2)


def test_sentences_that_begin_alike_are_not_one_question() -> None:
    rows = [
        {"sentence": f"The {what} fell because _ was big.", "option1": "Ann", "option2": "Bea", "answer": "1"}
        for what in ("box", "cup")
    ]
    other = {"sentence": "The box fell because _ was small and red.", "option1": "Ann", "option2": "Bea", "answer": "1"}
    assert len(prepared("winogrande", rows, [other, WINOGRANDE[0]], shots=1).items) == 2
    with pytest.raises(HemostatError, match="stands among what solved examples are taken from"):
        prepared("winogrande", rows, [other, rows[0] | {"answer": "2"}], shots=1)


def test_it_asks_between_items_whether_to_stop() -> None:
    asked: list[int] = []

    def check() -> None:
        asked.append(1)
        if len(asked) > 2:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        prepare(task("gsm8k", shots=0), HarnessRows(SUMS, ()), seed=0, pointer="", check_cancelled=check)
    assert len(asked) == 3
