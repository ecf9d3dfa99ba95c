"""Pictures: valid SVG with its own style, in both themes, and with nothing that is not there."""

import re
import xml.etree.ElementTree as ET

import pytest

from examples.paper.finding import Figure
from examples.paper.picture import THEMES, palette, picture
from examples.paper.rulings.charts import bars, log_bars

FIGURES = [Figure("a & b", 2.0, (1.5, 2.5), "nats", "c"), Figure("<d>", 9.0, (8.0, 10.0), "nats", "c")]
CHART = bars("both", "Both", FIGURES)
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("theme", THEMES)
def test_a_picture_is_xml_with_text_for_those_who_cannot_see_it(theme):
    root = ET.fromstring(picture(CHART, theme))
    assert root.tag == f"{SVG}svg"
    assert float(root.get("width")) > 0
    assert float(root.get("height")) > 0
    inner = root.find(f"{SVG}svg")
    assert inner.find(f"{SVG}title").text == "Both"
    assert "a & b: 2.00 [1.50, 2.50] nats" in inner.find(f"{SVG}desc").text


@pytest.mark.parametrize("theme", THEMES)
def test_every_colour_is_defined_and_every_class_has_its_rule(theme):
    text = picture(CHART, theme)
    style = ET.fromstring(text).find(f"{SVG}style").text
    for name in set(re.findall(r"var\((--[\w-]+)\)", text)):
        assert f"{name}: {palette(theme)[name]}" in style
    for name in ("bar", "whisker", "t.halo", "t.end", "base"):
        assert f".{name} {{" in style
    assert ".passage" not in style
    assert "@media" not in style


def test_bars_of_ratios_have_the_length_of_their_logarithm():
    chart = log_bars(
        "log",
        "Log",
        [Figure("ten", 10.0, (10.0, 10.0), "times", "x"), Figure("hundred", 100.0, (100.0, 100.0), "times", "x")],
    )
    rects = ET.fromstring(picture(chart, "light")).find(f"{SVG}svg").findall(f"{SVG}rect")
    short, long = (float(rect.get("width").rstrip("%")) for rect in rects)
    assert long / short == pytest.approx(2.0, rel=1e-3)
