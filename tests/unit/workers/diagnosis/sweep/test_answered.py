"""From answers at a setting to what it loses on tasks, by hand-made counts."""

import pytest

from tests.support.answered import answered
from workers.diagnosis.sweep.answered import answered_setting


def test_the_mean_is_over_tasks_that_are_not_at_chance():
    found = answered_setting(
        0.3, [answered("a", 380, 100, 20, 0), answered("b", 150, 49, 0, 1), answered("c", 0, 200, 0, 40)]
    )
    a, b, c = found.tasks
    assert a.loss.mean == pytest.approx(20 / 400)
    assert b.loss.mean == pytest.approx(-1 / 150)
    assert c.loss is None and c.reference == 0, "of nothing right nothing can be lost"
    assert found.degradation.mean == pytest.approx((20 / 400 - 1 / 150) / 2)
    assert (a.items, a.harmful, a.helpful, a.reference, a.candidate) == (500, 20, 0, 400 / 500, 380 / 500)


@pytest.mark.parametrize(
    ("counts", "within", "decided"),
    [
        ((970, 20, 5, 5), True, True),
        ((9_500, 400, 500, 0), True, False),  # 5 % to the item
        ((9_499, 400, 501, 0), False, False),
        ((700, 100, 200, 0), False, True),
        ((18, 2, 0, 0), True, False),  # nothing is lost, and twenty items do not show it
    ],
)
def test_the_mean_is_held_against_5_percent_and_its_interval_decides(counts, within, decided):
    found = answered_setting(4, [answered("a", *counts)])
    assert (found.within, found.decided) == (within, decided)


def test_a_reference_at_chance_on_all_tasks_says_nothing():
    found = answered_setting(None, [answered("a", 0, 20, 0, 3)])
    assert (found.degradation, found.within, found.decided, found.value) == (None, None, False, None)
