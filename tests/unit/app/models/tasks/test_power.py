"""The approximate power that the front end tells, against the exact one."""

import pytest
from scipy import stats

from app.models.tasks.power import detectable_difference, level_of
from workers.analysis.paired.mcnemar import detectable
from workers.distributions.significance import holm


@pytest.mark.parametrize("level", [0.05, 0.005])
@pytest.mark.parametrize(("items", "rate"), [(500, 0.1), (2000, 0.05), (10_000, 0.02), (300, 0.3)])
def test_it_is_near_the_exact_one(items, rate, level):
    exact, told = detectable(items, rate, level=level), detectable_difference(items, rate, level=level)
    assert exact is not None
    assert told is not None
    assert told == pytest.approx(exact, rel=0.12)


@pytest.mark.parametrize("tasks", [1, 4, 32])
def test_at_the_level_both_corrections_reject_whatever_the_other_tasks_show(tasks):
    """Only just: others that show nothing leave it at 5 %, and others that show much do not take it back."""
    for others in (1.0, 0.3, 0.02, 1e-9):
        values = [level_of(tasks), *[others] * (tasks - 1)]
        assert holm(values)[0] <= 0.05 + 1e-12
        assert stats.false_discovery_control(values)[0] <= 0.05 + 1e-12
    alone = [1.01 * level_of(tasks), *[1.0] * (tasks - 1)]
    assert min(holm(alone)[0], stats.false_discovery_control(alone)[0]) > 0.05


def test_too_few_items_show_nothing():
    assert detectable_difference(40, 0.05) is None
    assert detectable_difference(0, 0.05) is None
    assert detectable_difference(100, 0.0) is None
