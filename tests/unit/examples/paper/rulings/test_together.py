"""Interactions on hand-made surfaces."""

import pytest

from examples.paper.rulings.reports import Reports
from examples.paper.rulings.together import additive_inside, compounds_outside
from tests.support.paper_reports import surface

HARMLESS, HARMFUL = (1.1, 1.05, 1.2), (1.5, 1.3, 1.7)
SAFE, OUTSIDE = (HARMLESS, HARMLESS), (HARMLESS, HARMFUL)


def reports(alone, **nats):
    places = ((1, 1), (2, 2))
    cells = {place: nats[name] for place, name in zip(places, ("one", "other"), strict=True)}
    return Reports({"prune-and-quantize": surface(alone, cells)})


SMALL = ((0.0, -0.01, 0.01), "no_departure_shown")


@pytest.mark.parametrize(
    ("other", "outcome"),
    [((0.01, 0.005, 0.019), "confirmed"), ((0.05, 0.03, 0.07), "refuted"), ((0.02, 0.01, 0.03), "not identifiable")],
)
def test_interactions_at_safe_settings_against_the_margin(other, outcome):
    finding = additive_inside(reports(SAFE, one=SMALL, other=(other, "no_departure_shown")))
    assert finding.outcome == outcome
    assert [figure.value for figure in finding.figures] == [0.0, other[0]]


def test_without_a_safe_setting_nothing_is_known():
    finding = additive_inside(reports(OUTSIDE, one=SMALL, other=SMALL))
    assert finding.outcome == "not identifiable"
    assert finding.figures == ()


COMPOUNDS, OVERLAPS = ((0.3, 0.2, 0.4), "compounds"), ((-0.3, -0.4, -0.2), "overlaps")
# Not shown after the correction, but the interval by itself does not reach 0.
HINTS_MORE, HINTS_LESS = ((0.02, 0.01, 0.03), "no_departure_shown"), ((-0.02, -0.03, -0.01), "no_departure_shown")


@pytest.mark.parametrize(
    ("settings", "outcome"),
    [
        ((COMPOUNDS, COMPOUNDS, SMALL), "confirmed"),
        ((OVERLAPS, OVERLAPS, SMALL), "refuted"),
        ((OVERLAPS, OVERLAPS, HINTS_MORE), "not identifiable"),
        ((COMPOUNDS, SMALL), "not identifiable"),
    ],
)
def test_kinds_outside_the_safe_zone(settings, outcome):
    places = ((1, 1), (2, 2), (1, 2))
    given = surface(OUTSIDE, dict(zip(places, settings, strict=False)))
    assert compounds_outside(Reports({"prune-and-quantize": given})).outcome == outcome


def test_safe_settings_do_not_count_outside():
    finding = compounds_outside(reports(SAFE, one=COMPOUNDS, other=COMPOUNDS))
    assert (finding.outcome, finding.figures) == ("not identifiable", ())
