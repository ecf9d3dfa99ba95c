"""The metric that decides, and how often a guess is right by it."""

import pytest

from app.contracts.errors import HemostatError
from tests.support.harness_tasks import SUMS, prepared


def test_what_a_coin_would_answer_is_at_chance() -> None:
    rows = [{"question": f"is it {n}", "passage": "p", "label": n % 2, "idx": n} for n in range(40)]
    asked = prepared("boolq-seq2seq", rows)
    assert asked.guess == pytest.approx(0.5)
    assert prepared("gsm8k", SUMS, shots=0).guess == 0.0


def test_shares_of_several_right_choices_are_refused() -> None:
    row = {"question": "Q?", "mc2_targets": {"choices": ["a", "b", "c"], "labels": [1, 1, 0]}}
    with pytest.raises(HemostatError, match="acc gives other numbers than right and wrong"):
        prepared("truthfulqa_mc2", [row] * 3)


def test_a_metric_between_right_and_wrong_does_not_decide() -> None:
    date = {"day": "", "month": "", "year": ""}
    answer = {"number": "", "date": date, "spans": ["the sun", "the stars"]}
    nothing: dict[str, list[object]] = {"number": [], "date": [], "spans": []}
    rows = [
        {"query_id": str(n), "passage": "p", "question": "q", "answer": answer, "validated_answers": nothing}
        for n in range(3)
    ]
    assert prepared("drop", rows).metric == "em"
    with pytest.raises(HemostatError, match="f1 gives other numbers than right and wrong"):
        prepared("drop", rows, metric="f1")
