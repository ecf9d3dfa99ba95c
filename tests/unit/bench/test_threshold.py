"""What the simulations of the threshold draw, and how their answers become rows."""

from collections import Counter

import numpy as np
import pytest

from tests.bench import threshold


def test_straight_curves_have_the_noise_that_the_case_names() -> None:
    truth_N = threshold.STRAIGHT["power law"]
    drawn = np.stack([curve.log_N for curve in threshold.straight(truth_N, 2.0, 4000)])
    np.testing.assert_allclose(drawn.mean(0), truth_N, atol=0.006)
    np.testing.assert_allclose(drawn.std(0)[[0, -1]], [threshold.SIGMA, 3 * threshold.SIGMA], rtol=0.05)


def test_a_row_holds_the_share_of_each_answer(capsys: pytest.CaptureFixture[str]) -> None:
    found = Counter({"no transition in range": 3, "transition": 1})
    rows = threshold.rows_of("straight", "a line", found, "no transition in range")
    assert [(row.metric, row.value) for row in rows] == [
        ("no_transition_in_range", 0.75),
        ("transition", 0.25),
        ("simulations", 4),
    ]
    assert "3 of 4" in capsys.readouterr().err
