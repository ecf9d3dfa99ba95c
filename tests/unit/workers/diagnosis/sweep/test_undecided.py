"""Settings of a course whose interval holds the limit: neither shown to be mild nor shown not to be."""

from app.contracts.request import Thresholds
from app.kinds.sweep.report import Limit
from app.models.strength import Order
from tests.support.sweep_reports import course, sweep_report
from workers.diagnosis.sweep.course import Course
from workers.diagnosis.sweep.sides import form_free


def judged(made: Course) -> Limit | None:
    return form_free(made, Thresholds(), seed=0)[0].largest_mild


def test_settings_whose_interval_holds_the_limit_are_undecided_up_to_the_first_that_is_beyond_it() -> None:
    settings = [(0.1, 0.1, 0.01, 0.01), (0.2, 0.2, 0.05, 0.03), (0.3, 0.3, 0.051, 0.03), (0.4, 0.4, 0.5, 0.4)]
    made = course(settings)
    held = [point.value for point in made.points if point.record.classes == ("mild", "moderate")]
    assert held == [0.2, 0.3], "their intervals hold 0.05"
    found = judged(made)
    assert found is not None and (found.largest, found.undecided) == (0.1, (0.2, 0.3))
    dipping = course([settings[0], (0.15, 0.15, 0.5, 0.4), *settings[1:3]])
    past = judged(dipping)
    assert past is not None and past.undecided == (), "a weaker setting is beyond the limit for sure"
    alone = judged(course(settings, order=Order("unknown", (0, 1, 2, 3))))
    assert alone is not None and alone.undecided == (0.2, 0.3)


def test_a_weakest_setting_that_is_undecided_is_not_called_harmful() -> None:
    verdict = sweep_report(course([(0.1, 0.1, 0.05, 0.03), (0.15, 0.15, 0.5, 0.4)]))["verdict"]
    assert verdict.startswith("The damage is not shown to stay mild: it is undecided at sparsity = 0.1; ")
    assert "95 % interval from before the weakest setting to 0.1" in verdict
    assert "Not even" not in verdict
    harmful = sweep_report(course([(0.1, 0.1, 0.5, 0.4), (0.15, 0.15, 0.9, 0.8)]))["verdict"]
    assert harmful.startswith("Not even sparsity = 0.1 keeps the damage mild.")


def test_an_undecided_end_of_the_course_is_told() -> None:
    """No mean passes the limit, so that no place is told."""
    settings = [(0.1, 0.1, 0.01, 0.01), (0.2, 0.2, 0.049, 0.03)]
    verdict = sweep_report(course(settings))["verdict"]
    assert verdict.startswith("The damage stays mild up to sparsity = 0.1; undecided at sparsity = 0.2; ")
    report = sweep_report(course(settings[1:], order=Order("unknown", (0,))), field="damping", share=None)
    assert "shown to be mild at none of the 1 measured, and undecided at damping = 0.2." in report["verdict"]
