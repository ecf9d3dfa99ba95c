import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.reports import format as fmt

SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def read(text: str) -> float:
    """The number that a reader would take from a text."""
    found = re.fullmatch(r"([−+]?[\d,]+(?:\.\d+)?)(?:×10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+))?", text)
    assert found, text
    mantissa = float(found[1].replace("−", "-").replace(",", ""))
    return mantissa * 10.0 ** int((found[2] or "⁰").translate(SUPERSCRIPTS))


@pytest.mark.parametrize(
    ("mean", "ci", "value", "interval"),
    [
        (0.32631, (0.3112, 0.3421), "0.326", "[0.311, 0.342]"),
        (1.02e-6, (0.98e-6, 1.07e-6), "1.020×10⁻⁶", "[0.980, 1.070]×10⁻⁶"),
        (1.0000012, (1.0000003, 1.0000021), "1.00000120", "[1.00000030, 1.00000210]"),
        (-0.002, (-0.004, 0.0001), "−0.0020", "[−0.0040, 0.0001]"),
        (0.0, (0.0, 0.0), "0", "[0, 0]"),
        (12345.6, (12000.0, 12700.0), "12,346", "[12,000, 12,700]"),
        (0.0712, None, "0.0712", None),
        (None, None, "–", None),
    ],
)
def test_an_estimate_has_the_digits_that_its_interval_supports(mean, ci, value, interval):
    found = fmt.estimate(mean, ci)
    assert (found.value, found.interval) == (value, interval)


@pytest.mark.parametrize(
    ("mean", "ci", "value", "interval"),
    [
        (-0.038, (-2.512, 2.436), "−0.04", "[−2.51, 2.44]"),  # by its interval alone 0.0
        (3.5, (0.29, 44.1), "3.5", "[0.3, 44.1]"),  # a ratio is not 0
        (1e-7, (-3.0, 3.0), "0.0", "[−3.0, 3.0]"),  # no row of zeros where a digit is far away
        (0.0, (-3.0, 3.0), "0.0", "[−3.0, 3.0]"),
    ],
)
def test_what_is_not_zero_reads_as_zero_only_where_it_is_far_below_its_interval(mean, ci, value, interval):
    found = fmt.estimate(mean, ci)
    assert (found.value, found.interval) == (value, interval)


@given(st.floats(1e-9, 1e3), st.floats(1e-4, 0.9))
def test_an_estimate_reads_back_within_a_tenth_of_its_half_width(mean, relative):
    half = mean * relative
    found = fmt.estimate(mean, (mean - half, mean + half))
    assert read(found.value) == pytest.approx(mean, abs=0.06 * half)


@given(st.one_of(st.floats(1e-12, 1e9), st.floats(-1e9, -1e-12)), st.integers(1, 6))
def test_a_number_reads_back_to_its_digits(value, digits):
    assert read(fmt.number(value, digits)) == pytest.approx(value, rel=0.51 * 10.0 ** (1 - digits), abs=0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.32631, "0.326"),
        (0, "0"),
        (9.996e-7, "1.00×10⁻⁶"),
        (-0.5, "−0.500"),
        (1234.5, "1,234"),
        (0.9996, "1.00"),
        (1.0686e13, "1.07×10¹³"),
    ],
)
def test_a_number_has_three_digits(value, text):
    assert fmt.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.05, "0.05"), (1, "1"), (1e-5, "10⁻⁵"), (3e-6, "3×10⁻⁶"), (1e5, "10⁵"), (-0.5, "−0.5")],
)
def test_axis_labels_are_short(value, text):
    assert fmt.short(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.5, "50.0"), (1.0, "100"), (0.9999, "99.99"), (0.999999578, "> 99.99"), (0.0, "0"), (1e-6, "1.00×10⁻⁴")],
)
def test_a_share_short_of_all_never_reads_as_all(share, text):
    assert fmt.percent(share) == text


@given(st.floats(0.9, 1.0, exclude_max=True))
def test_per_cent_of_nearly_all_is_under_a_hundred(share):
    if 1 - share > 1e-12:
        assert read(fmt.percent(share).removeprefix("> ")) < 100


@pytest.mark.parametrize(
    ("share", "ci", "text"),
    [
        (0.999999578, (0.99999952, 0.99999963), "> 99.99 [> 99.99, > 99.99]"),
        (0.9999996, None, "100.0"),
        (0.99992, (0.99985, 0.99996), "99.99 [99.98, > 99.99]"),
        (1.0000000012, (0.9999999, 1.0000001), "100.00 [> 99.99, 100.00]"),
        (1.0, None, "100"),
        (0.99971, (0.9995, 0.9998), "99.97 [99.95, 99.98]"),
        (0.97, (0.91, 1.02), "97.0 [91.0, 102.0]"),
    ],
)
def test_an_estimate_of_nearly_all_is_rounded_for_people(share, ci, text):
    assert str(fmt.estimate(share, ci, percent=True)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.24, "0.2 s"), (59.94, "59.9 s"), (61.5, "1 min 02 s"), (3599.6, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_durations(seconds, text):
    assert fmt.duration(seconds) == text


@pytest.mark.parametrize(
    ("amount", "text"), [(512, "512 B"), (269060552, "257 MiB"), (2**40, "1.00 TiB"), (5 * 2**50, "5,120 TiB")]
)
def test_sizes(amount, text):
    assert fmt.size(amount) == text


def test_moments_are_in_utc_and_impossible_ones_do_no_harm():
    assert fmt.moment(1772366400) == "2026-03-01 12:00:00 UTC"
    assert "1970" in fmt.moment(1e30)


def test_one_of_a_thing_has_no_s():
    assert [fmt.counted(value, "document") for value in (0, 1, 2, 12345)] == [
        "0 documents",
        "1 document",
        "2 documents",
        "12,345 documents",
    ]


@pytest.mark.parametrize(("value", "text"), [(0.38, "0.38"), (2.0, "2"), (1432.4, "1,432"), (6e-7, "6.00×10⁻⁷")])
def test_a_place_has_no_exponent_and_no_zeros_at_its_end(value, text):
    assert fmt.plain(value) == text
