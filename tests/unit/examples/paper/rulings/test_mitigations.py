"""Mitigations against plain methods on hand-made reports."""

import pytest

from examples.paper.finding import NoNumberError
from examples.paper.rulings.mitigations import decoding_calibration, dynamic_scaling, gradient_pruning
from examples.paper.rulings.reports import Reports
from tests.support.paper_reports import calibrated, compared, differing

# What the plain method costs over the treated one, and p of that.
CASES = [
    ((0.5, 0.4, 0.6), 0.001, "confirmed"),
    ((-0.5, -0.6, -0.4), 0.001, "refuted"),
    ((0.05, -0.05, 0.15), 0.3, "not identifiable"),
]


def pair(treated, plain, more, p):
    reports = {treated: compared(kl=(1.0, 0.5, 1.5)), plain: compared(kl=(1.2, 0.7, 1.7))}
    return Reports(reports, differing({(treated, plain): more}, p))


@pytest.mark.parametrize(("more", "p", "outcome"), CASES)
def test_gradient_aware_pruning_against_wanda(more, p, outcome):
    finding = gradient_pruning(pair("gradient-half", "half-wanda", more, p))
    assert finding.outcome == outcome
    assert finding.figures[-1].ci == more[1:]


@pytest.mark.parametrize(("more", "p", "outcome"), CASES)
def test_dynamic_scaling_against_rounding(more, p, outcome):
    assert dynamic_scaling(pair("dynamic-four-bits", "four-bits-rtn", more, p)).outcome == outcome


@pytest.mark.parametrize(
    ("saved", "outcome"),
    [
        ((0.1, 0.08, 0.12), "confirmed"),
        ((-0.1, -0.12, -0.08), "refuted"),
        ((0.01, -0.01, 0.03), "not identifiable"),
    ],
)
def test_what_the_chosen_correction_saves_is_judged_and_not_what_others_would(saved, outcome):
    domains = {"prose": (0.1, 0.05, 0.15), "code": (0.0, -0.1, 0.1), "json": (-0.2, -0.3, -0.1)}
    finding = decoding_calibration(Reports({"four-bits-calibrated": calibrated(saved, domains)}))
    assert finding.outcome == outcome
    assert "better: 1 of 3 domains; significantly worse: 1." in finding.sentence
    assert [figure.value for figure in finding.figures if figure.what == "saved by calibration"] == [saved[0]]


def test_a_calibration_that_chose_nothing_has_no_number():
    with pytest.raises(NoNumberError, match="no correction was chosen"):
        decoding_calibration(Reports({"four-bits-calibrated": calibrated((1.0, 0.9, 1.1), {}, chosen=False)}))
