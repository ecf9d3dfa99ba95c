"""Rows that a definition takes in its own order, and solved examples that must not hold what is asked."""

import pytest

from app.contracts.errors import HemostatError
from app.models.tasks.harness import HarnessRows
from tests.support.harness_tasks import SUMS, WINOGRANDE, prepared, task
from workers.answering.harness.running import prepare
from workers.process.handler import JobCancelled


def test_the_same_question_among_the_examples_is_found_whatever_else_the_row_says() -> None:
    same = [row | {"id": number + 100} for number, row in enumerate(SUMS)]
    rows = [row | {"id": number} for number, row in enumerate(SUMS)]
    with pytest.raises(HemostatError, match="is among what solved examples are taken from") as refused:
        prepared("gsm8k", rows, same, shots=3)
    assert refused.value.pointer == "/tasks/0/examples"


def test_sentences_that_begin_alike_are_not_one_question() -> None:
    rows = [
        {"sentence": f"The {what} fell because _ was big.", "option1": "Ann", "option2": "Bea", "answer": "1"}
        for what in ("box", "cup")
    ]
    other = {"sentence": "The box fell because _ was small and red.", "option1": "Ann", "option2": "Bea", "answer": "1"}
    assert len(prepared("winogrande", rows, [other, WINOGRANDE[0]], shots=1).items) == 2
    with pytest.raises(HemostatError, match="is among what solved examples are taken from"):
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
