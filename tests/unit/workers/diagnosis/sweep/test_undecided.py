"""Settings of a course whose interval holds the limit: neither shown to be mild nor shown not to be."""

from app.contracts.request import Thresholds
from app.kinds.sweep.lossless import Setting
from app.models.strength import Order
from tests.support.sweep_reports import course
from workers.diagnosis.sweep.sides import form_free


def judged(made):
    return form_free(made, Thresholds(), seed=0)[0].largest_mild


def test_settings_whose_interval_holds_the_limit_are_undecided_up_to_the_first_that_is_beyond_it():
    settings = [(0.1, 0.1, 0.01, 0.01), (0.2, 0.2, 0.05, 0.03), (0.3, 0.3, 0.051, 0.03), (0.4, 0.4, 0.5, 0.4)]
    made = course(settings)
    held = [point.value for point in made.points if point.record.classes == ("mild", "moderate")]
    assert held == [0.2, 0.3], "their intervals hold 0.05"
    found = judged(made)
    assert (found.largest, found.undecided) == (Setting(value=0.1), (0.2, 0.3))
    dipping = course([settings[0], (0.15, 0.15, 0.5, 0.4), *settings[1:3]])
    past = judged(dipping)
    assert past.undecided == (), "a weaker setting is beyond the limit for sure"
    alone = judged(course(settings, order=Order("unknown", (0, 1, 2, 3))))
    assert alone.undecided == (0.2, 0.3)
