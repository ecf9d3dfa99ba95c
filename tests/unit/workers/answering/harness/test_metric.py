"""The metric that decides, and how often a guess is right by it."""

import numpy as np
import pytest

from app.contracts.errors import HemostatError
from tests.support.harness_tasks import SUMS, prepared


def test_what_always_one_answer_gives_is_at_chance() -> None:
    rows = [{"question": f"is it {n}", "answer": ["yes" if n % 2 else "No", "maybe"]} for n in range(40)]
    assert prepared("nq_open", rows).guess == pytest.approx(0.5)
    assert prepared("gsm8k", SUMS, shots=0).guess == 0.0


def test_any_of_several_right_answers_is_right() -> None:
    answer = {"value": "The Sun", "aliases": ["the sun", "Sol"]}
    asked = prepared("triviaqa", [{"question": "Which star?", "answer": answer}] * 4)
    assert asked.metric == "exact_match,remove_whitespace"
    assert asked.texts_scored(["Sol", " the sun ", "the moon", ""]).right[asked.metric].tolist() == [1, 1, 0, 0]


def test_a_metric_over_all_answers_does_not_decide() -> None:
    rows = [{"sentence1": f"a {n}", "sentence2": "b", "label": n % 2, "idx": n} for n in range(4)]
    asked = prepared("mrpc", rows)
    assert asked.metric == "acc"
    assert set(asked.choices_scored([np.asarray([-1.0, -2.0])] * 4).right) == {"acc"}
    with pytest.raises(HemostatError, match="no metric f1 of right and wrong"):
        prepared("mrpc", rows, metric="f1")
