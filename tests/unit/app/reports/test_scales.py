import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contracts.report import Mean
from app.reports.scales import LinearScale, LogScale, ticks


def test_a_decade_is_the_same_length_everywhere():
    scale = LogScale(1e-6, 1.0)
    places = [scale.at(10.0**power) for power in range(-6, 1)]
    assert places == pytest.approx([0, 100 / 6, 200 / 6, 50, 400 / 6, 500 / 6, 100])


@given(st.floats(1e-9, 1e3), st.floats(1e-9, 1e3))
def test_larger_values_stand_further_right(one, other):
    scale = LogScale(1e-6, 10.0)
    low, high = sorted((one, other))
    assert 0 <= scale.at(low) <= scale.at(high) <= 100


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_what_has_no_logarithm_stands_at_the_low_end(value):
    scale = LogScale(1e-3, 1.0)
    assert scale.at(value) == 0
    assert not scale.holds(value)


@given(st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=8))
def test_an_axis_around_values_holds_them_and_is_never_degenerate(values):
    scale = LogScale.around(*values)
    assert all(scale.holds(value) for value in values)
    assert scale.high / scale.low >= 2.99


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (-1.0, 1.0)])
def test_a_logarithmic_axis_needs_a_positive_range(low, high):
    with pytest.raises(ValueError, match="needs 0 < low < high"):
        LogScale(low, high)


def test_a_linear_axis_needs_a_range():
    with pytest.raises(ValueError, match="needs low < high"):
        LinearScale(1.0, 1.0)


def test_powers_of_ten_are_labelled_first():
    assert ticks(LogScale(5e-5, 20.0), 10) == pytest.approx((1e-4, 1e-3, 1e-2, 1e-1, 1, 10))


@given(st.floats(-12, 2), st.floats(0.5, 14), st.sampled_from([8, 12, 17, 30]))
def test_labels_keep_their_distance(start, decades, gap):
    scale = LogScale(10**start, 10 ** (start + decades))
    places = [scale.at(tick) for tick in ticks(scale, gap)]
    assert all(after - before >= gap - 1e-9 for before, after in pairwise(places))
    assert all(0 <= place <= 100 for place in places)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-1.0, 1.0, (-1, -0.5, 0, 0.5, 1)),
        (0.0, 0.104, (0, 0.05, 0.1)),
        (-0.37, 0.37, (-0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3)),
    ],
)
def test_linear_labels_are_round(low, high, expected):
    gap = 12 if math.isclose(high, 0.37) else 20
    assert ticks(LinearScale(low, high), gap) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("low", "high", "gap", "step"), [(0.0, 128.0, 12, 20), (0.0, 9.9, 17, 2), (-0.033, 0.033, 17, 0.02)]
)
def test_linear_labels_are_as_far_apart_as_each_other(low, high, gap, step):
    labels = ticks(LinearScale(low, high), gap)
    assert [after - before for before, after in pairwise(labels)] == pytest.approx([step] * (len(labels) - 1))


def test_an_axis_around_zero_holds_zero_every_mean_and_every_limit() -> None:
    means = [Mean(mean=0.2, ci=(0.1, 0.4)), Mean(mean=0.3, ci=None), Mean(mean=None, ci=None)]
    scale = LinearScale.around_zero(*means)
    assert scale.low < 0
    assert scale.high > 0.4
    assert LinearScale.around_zero().holds(0.0)
