"""Mitigations against plain methods on hand-made reports."""

import pytest

from examples.paper.rulings.mitigations import dynamic_scaling, gradient_pruning
from examples.paper.rulings.reports import Reports
from tests.support.paper_reports import compared, swept

CASES = [
    ((0.5, 0.4, 0.6), "confirmed"),
    ((1.5, 1.4, 1.6), "refuted"),
    ((0.95, 0.85, 1.05), "not identifiable"),
]
PLAIN = (1.0, 0.9, 1.1)
ANY = (2.0, 1.9, 2.1)


@pytest.mark.parametrize(("kl", "outcome"), CASES)
def test_gradient_aware_pruning_against_wanda(kl, outcome):
    reports = Reports({"gradient-half": compared(kl=kl), "wanda-sparsity": swept({0.5: ANY}, kl=PLAIN)})
    assert gradient_pruning(reports).outcome == outcome


@pytest.mark.parametrize(("kl", "outcome"), CASES)
def test_dynamic_scaling_against_rounding(kl, outcome):
    reports = Reports({"dynamic-four-bits": compared(kl=kl), "rtn-bits": swept({4: ANY}, kl=PLAIN)})
    assert dynamic_scaling(reports).outcome == outcome
