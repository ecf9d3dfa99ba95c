"""Survival curves as markup: places against arithmetic by hand."""

import re
from xml.etree import ElementTree

import pytest

from app.reports.charts.survival import Curve, survival_chart, survival_strip

CURVE = Curve(
    "A", ((0, 1.0, 1.0, 1.0), (1, 1.0, 0.8, 1.0), (2, 0.5, 0.3, 0.7), (3, 0.5, 0.3, 0.7), (4, 0.25, 0.1, 0.5)), 0
)


def shapes(markup, tag, kind):
    root = ElementTree.fromstring(str(markup))
    return [one for one in root.iter(tag) if kind in one.get("class", "").split()]


def test_the_curve_falls_where_texts_part_and_is_flat_between():
    lines = shapes(survival_strip("t", CURVE, 4), "line", "series")
    flat = [(one.get("x1"), one.get("x2")) for one in lines if one.get("y1") == one.get("y2")]
    steep = [one.get("x1") for one in lines if one.get("y1") != one.get("y2")]
    assert flat == [("0.00%", "25.00%"), ("25.00%", "50.00%"), ("50.00%", "100.00%")]
    assert steep == ["50.00%", "100.00%"]


def test_the_band_is_the_interval():
    bands = shapes(survival_chart("t", [CURVE], 4), "rect", "fan")
    # The labels take 8 % of the width.
    assert [(one.get("x"), one.get("width")) for one in bands] == [("31.00%", "23.00%"), ("54.00%", "46.00%")]
    heights = [float(one.get("height")) for one in bands]
    assert heights == pytest.approx([0.2 * 190, 0.4 * 190])


def test_several_candidates_are_named_and_differ_by_more_than_colour():
    other = Curve("<b>B</b>", CURVE.points, 1)
    markup = str(survival_chart("t", [CURVE, other], 4))
    assert "&lt;b&gt;B&lt;/b&gt;" in markup
    assert {"s0", "s1"} <= set(re.findall(r"s\d", markup))


def test_those_who_cannot_see_it_are_told_the_median():
    assert "half have parted after 2 tokens" in str(survival_chart("t", [CURVE], 4))
    at_once = Curve("A", ((0, 1.0, 1.0, 1.0), (1, 0.0, 0.0, 0.4)), 0)
    assert "half have parted after 1 token;" in str(survival_chart("t", [at_once], 4))
    same = Curve("A", ((0, 1.0, 1.0, 1.0), (4, 1.0, 0.7, 1.0)), 0)
    assert "fewer than half part" in str(survival_chart("t", [same], 4))
