"""The approximate power that the front end tells, against the exact one."""

import pytest

from app.models.tasks.power import detectable_difference
from workers.diagnosis.tasks.statistics.mcnemar import detectable


@pytest.mark.parametrize(("items", "rate"), [(500, 0.1), (2000, 0.05), (10_000, 0.02), (300, 0.3)])
def test_it_is_near_the_exact_one(items: int, rate: float) -> None:
    exact, told = detectable(items, rate), detectable_difference(items, rate)
    assert exact is not None
    assert told is not None
    assert told == pytest.approx(exact, rel=0.12)


def test_too_few_items_show_nothing() -> None:
    assert detectable_difference(40, 0.05) is None
    assert detectable_difference(0, 0.05) is None
    assert detectable_difference(100, 0.0) is None
