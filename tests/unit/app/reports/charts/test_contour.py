"""The chart of two knobs: squares where their settings are, the line where its points are."""

import re

import pytest

from app.reports.charts.contour import STEPS, Axis, Square, surface_chart
from app.web.pages import TEMPLATES

ACROSS, UP = Axis("bits", ["none", "8", "4"]), Axis("sparsity", ["none", "0.5"])


def chart(lines=((),), **changes):
    squares = [[Square(f"{x}{y}", f"at {x} {y}", 1 + x + y, marked=(x, y) == (1, 1)) for y in (0, 1)] for x in range(3)]
    return str(surface_chart(ACROSS, UP, changes.get("squares", squares), lines, title="t", desc="d"))


def test_every_setting_is_a_square_with_its_number_and_name():
    svg = chart()
    assert svg.count("<rect") == 6
    assert "<title>at 2 1</title>" in svg
    assert 'class="heat h4"' in svg
    assert svg.count("chosen") == 1
    for text in ("none", "8", "4", "0.5", "bits", "sparsity", "21"):
        assert f">{text}</text>" in svg


def test_a_setting_without_a_number_is_left_open():
    squares = [[Square("1", "a", 1), None], [None, None], [None, Square("2", "b", 2)]]
    assert chart(squares=squares).count("<rect") == 2


def test_the_line_runs_through_the_middles_of_the_squares():
    svg = chart(lines=[((0.0, 0.0), (2.0, 1.0), (1.0, 1.0))])
    found = re.findall(r'x1="([\d.]+)%" x2="([\d.]+)%" y1="([\d.]+)" y2="([\d.]+)" class="contour"', svg)
    assert len(found) == 2
    rects = re.findall(r'x="([\d.]+)%" y="([\d.]+)" width="([\d.]+)%" height="([\d.]+)"', svg)
    middles = [(float(x) + float(w) / 2, float(y) + float(h) / 2) for x, y, w, h in rects]
    x1, x2, y1, y2 = map(float, found[0])
    assert (x1, y1) == pytest.approx(middles[0], abs=0.2), "from (0, 0)"
    assert (x2, y2) == pytest.approx(middles[5], abs=0.2), "to (2, 1)"
    assert y2 < y1, "further up is further turned"


def numbers(svg):
    """(place in the SVG, y, classes, text) of the numbers in squares."""
    found = re.finditer(r'<text x="[\d.]+%" y="([\d.]+)" class="(t mid halo[^"]*)">(\d\d)</text>', svg)
    return [(one.start(), float(one[1]), one[2], one[3]) for one in found]


def test_numbers_stand_above_the_line_each_on_a_rim_of_its_square_s_colour():
    svg = chart(lines=[((0.0, 0.0), (2.0, 1.0))])
    assert [text for _, _, _, text in numbers(svg)] == ["00", "01", "10", "11", "20", "21"]
    assert min(place for place, *_ in numbers(svg)) > svg.rindex('class="contour"')
    for _, _, classes, text in numbers(svg):
        assert f"h{1 + int(text[0]) + int(text[1])}" in classes.split()
    css = (TEMPLATES / "report.css").read_text()
    assert re.search(r"\.t\.halo \{[^}]*paint-order: stroke", css)
    for step in range(STEPS + 1):
        fill = re.search(rf"\.heat\.h{step} \{{ fill: ([^;]+);", css)
        assert fill is not None
        assert f".halo.h{step} {{ stroke: {fill[1]}; }}" in css


def test_what_goes_the_other_way_has_colours_and_a_rim_of_its_own():
    svg = chart(
        squares=[[Square("+2", "up", 4), Square("−2", "down", -4)], [Square("0", "none", 0), None], [None, None]]
    )
    assert 'class="heat h4"' in svg and 'class="heat c4 cool"' in svg and 'class="heat h0"' in svg
    assert 'class="t mid halo c4 on-heat"' in svg
    css = (TEMPLATES / "report.css").read_text()
    assert re.search(r"\.heat\.cool \{[^}]*stroke-dasharray", css)
    warm, cool = (re.findall(rf"--{letter}{STEPS}: (#\w+);", css) for letter in "kc")
    assert len(warm) == len(cool) == 2, "in the light and in the dark"
    for one, other in zip(warm, cool, strict=True):
        red, blue = ([int(colour[place : place + 2], 16) for place in (1, 5)] for colour in (one, other))
        assert red[0] > red[1] and blue[0] < blue[1]
    for step in range(1, STEPS + 1):
        assert f".heat.c{step} {{ fill: var(--c{step}); }}" in css
        assert f".halo.c{step} {{ stroke: var(--c{step}); }}" in css


def test_squares_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="3 columns of 2 rows"):
        chart(squares=[[None, None]])
