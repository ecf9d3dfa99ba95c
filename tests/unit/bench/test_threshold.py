"""What the simulations of the threshold draw, and how their answers become rows."""

from typing import get_args

import numpy as np
import pytest

from tests.bench import threshold
from tests.bench.rows import by_case, read
from tests.support.knee_documents import Errors, around
from tests.unit.workers.analysis.threshold.curves import CURVES


def test_straight_curves_have_the_noise_that_the_case_names() -> None:
    s_N = np.linspace(0.1, 0.8, 12)
    truth_N = threshold.straight_ones(s_N)["power law"]
    drawn = np.stack([curve.log_N for curve, _ in threshold.straight(s_N, truth_N, 2.0, 4000)])
    np.testing.assert_allclose(drawn.mean(0), truth_N, atol=0.006)
    np.testing.assert_allclose(drawn.std(0)[[0, -1]], [threshold.SIGMA, 3 * threshold.SIGMA], rtol=0.05)


@pytest.mark.parametrize("errors", get_args(Errors))
def test_errors_of_documents_hang_together_as_the_case_names(errors: Errors) -> None:
    """By the standard deviation of each setting's error over many documents, about a level of its own."""
    s_N = np.linspace(0.1, 0.8, 12)
    truth_N = threshold.straight_ones(s_N)["exponential"]
    losses = around(truth_N, errors, 20_000, np.random.default_rng(0))
    change_N = (losses.sum_PD / losses.tokens_D - truth_N[:, None] - (losses.sum_PD / losses.tokens_D)[0]).std(axis=1)
    along_N = np.arange(12)
    expected = {
        "independent": 0.05 * np.sqrt(2) * (along_N > 0),
        "accumulating": 0.05 * np.sqrt(along_N),
        "proportional": np.sqrt(2 * 0.05**2 * (along_N > 0) + np.expm1(0.25) * (truth_N - truth_N[0]) ** 2),
    }
    np.testing.assert_allclose(change_N, expected[errors], rtol=0.04, atol=1e-12)


def test_curves_over_documents_are_those_of_their_documents() -> None:
    s_N = np.linspace(0.1, 0.8, 12)
    for curve, losses in threshold.straight_documents(s_N, threshold.straight_ones(s_N)["constant"], "accumulating", 3):
        assert losses is not None
        assert len(losses.tokens_D) == 20
        np.testing.assert_allclose(curve.log_N, losses.logs())


def test_the_committed_fits_of_published_curves_are_those_of_today() -> None:
    """Those of few points, which take least; a minimum may differ in its last digits on another processor."""
    committed = by_case(row for row in read(threshold.RESULTS) if row.bench == "published")
    assert committed.keys() == CURVES.keys()
    few = {name: curve for name, curve in CURVES.items() if len(curve.curve) < 10}
    for row in threshold.published(few):
        assert committed[row.case][row.metric] == pytest.approx(row.value, rel=1e-3), (row.case, row.metric)
