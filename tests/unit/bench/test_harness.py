"""Answers beside the harness' own: what is counted as different, and what is asked."""

import dataclasses

from tests.bench.harness import differences, mean_gap
from tests.bench.harness_told import Told

CHOSEN = Told("Q", (-1.0, -2.0), "", {"acc": "a", "acc_norm": "b"}, {"acc": True, "acc_norm": False})


def test_each_difference_is_counted_where_it_is() -> None:
    other = dataclasses.replace(
        CHOSEN,
        prompt="q",
        logp=(-1.0, -2.5),
        said={"acc": "b", "acc_norm": "b"},
        right={"acc": False, "acc_norm": False},
    )
    found = {row.metric: row.value for row in differences("harness", "arc", [CHOSEN, CHOSEN], [CHOSEN, other])}
    assert found == {
        "items": 2,
        "different_prompts": 1,
        "choices": 4,
        "largest_difference": 0.5,
        "mean_difference": 0.125,
        "acc_different_answers": 1,
        "acc_different_right": 1,
        "acc_harness": 0.5,
        "acc_norm_different_answers": 0,
        "acc_norm_different_right": 0,
        "acc_norm_harness": 0.0,
    }


def test_rounding_is_the_mean_over_choices() -> None:
    rounded = dataclasses.replace(CHOSEN, logp=(-1.25, -2.25))
    assert mean_gap([CHOSEN, rounded], [CHOSEN, CHOSEN]) == 0.125
