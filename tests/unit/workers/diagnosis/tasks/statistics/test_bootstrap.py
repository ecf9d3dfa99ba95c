"""The paired bootstrap covers, and agrees with Student's t where that is right."""

import numpy as np
import pytest
from scipy import stats

from workers.diagnosis.tasks.statistics.bootstrap import paired


def answers(rng: np.random.Generator, items: int, harmful: float, helpful: float) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    kind = rng.choice(3, items, p=[harmful, helpful, 1 - harmful - helpful])
    reference = np.where(kind == 2, rng.random(items) < 0.6, kind == 0)
    return reference, np.where(kind == 2, reference, kind == 1)


def test_with_many_flips_it_is_students_interval() -> None:
    reference, candidate = answers(np.random.default_rng(0), 2000, 0.15, 0.1)
    change = candidate.astype(float) - reference
    error = change.std(ddof=1) / np.sqrt(change.size)
    t = stats.t.ppf(0.975, change.size - 1)
    expected = change.mean() - t * error, change.mean() + t * error
    assert paired(reference, candidate, seed=0) == pytest.approx(expected, abs=0.15 * error)


def test_it_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    found = [paired(*answers(rng, 150, 0.12, 0.06), seed=number) for number in range(80)]
    assert 0.88 <= np.mean([low <= -0.06 <= high for low, high in found]) <= 1.0


def test_without_a_flip_it_is_a_point() -> None:
    assert paired([True, False, True], [True, False, True], seed=0) == (0.0, 0.0)
    with pytest.raises(ValueError, match="two items"):
        paired([True], [True], seed=0)
