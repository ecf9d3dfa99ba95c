"""Adjusted p-values against scipy and against the procedures step by step."""

import numpy as np
import pytest
from scipy import stats

from workers.diagnosis.tasks.statistics.multiplicity import benjamini_hochberg, holm

CASES = [[0.01], [0.04, 0.01, 0.03], [0.2, 0.2, 0.001, 0.9, 0.04], [1.0, 1.0], [0.5, 0.01, 0.01, 0.02]]


@pytest.mark.parametrize("values", CASES)
def test_the_false_discovery_rate_is_scipys(values: list[float]) -> None:
    assert benjamini_hochberg(values) == pytest.approx(stats.false_discovery_control(values))


def rejected_by_holm(values: list[float], level: float) -> set[int]:
    """From the smallest p on, while p ≤ level / (number that is left)."""
    found: set[int] = set()
    for place, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        if values[index] > level / (len(values) - place):
            break
        found.add(index)
    return found


@pytest.mark.parametrize("values", CASES)
@pytest.mark.parametrize("level", [0.011, 0.031, 0.051, 0.12, 0.41])
def test_holms_values_reject_what_his_steps_reject(values: list[float], level: float) -> None:
    adjusted = holm(values)
    assert {index for index, value in enumerate(adjusted) if value <= level} == rejected_by_holm(values, level)


def test_no_true_hypothesis_falls_more_often_than_the_level_says() -> None:
    rng = np.random.default_rng(4)
    fallen = [min(holm(list(rng.random(6)))) < 0.05 for _ in range(3000)]
    assert np.mean(fallen) == pytest.approx(0.05, abs=0.015)
