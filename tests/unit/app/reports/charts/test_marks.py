import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from app.contracts.report import Histogram
from app.contracts.request import Thresholds
from app.reports.charts.marks import (
    Guide,
    Mark,
    axis,
    histogram_chart,
    interval_strip,
    share_bar,
    threshold_chart,
)
from app.reports.scales import LinearScale, LogScale


def parsed(markup):
    return ElementTree.fromstring(str(markup))


def of_class(svg, name):
    return [node for node in svg.iter() if name in node.get("class", "").split()]


def node_class(node):
    return set(node.get("class", "").split())


def place(node, attribute):
    return float(node.get(attribute).removesuffix("%"))


def texts(svg):
    return [node.text for node in svg.iter("text")]


def threshold(excess, ci, **options):
    options = {"floor": 0.0, "detectable": None, "classes": ("severe",)} | options
    return parsed(threshold_chart(excess, ci, Thresholds(), **options))


def test_the_excess_stands_between_its_thresholds_on_a_logarithmic_axis():
    svg = threshold(math.sqrt(0.05 * 0.2), (0.06, 0.15))
    bands = {node.get("class").split()[1]: node for node in of_class(svg, "band")}
    left, width = place(bands["sev-moderate"], "x"), place(bands["sev-moderate"], "width")
    assert place(of_class(svg, "estimate")[0], "cx") == pytest.approx(left + width / 2, abs=0.02)


def test_the_bands_fill_the_axis_in_order():
    svg = threshold(0.3, (0.25, 0.35))
    bands = of_class(svg, "band")
    assert [node.get("class") for node in bands] == [
        f"band sev-{name}" for name in ("none", "mild", "moderate", "severe", "collapse")
    ]
    assert sum(place(node, "width") for node in bands) == pytest.approx(100, abs=0.05)


def test_the_whisker_spans_the_interval():
    svg = threshold(0.3, (0.2, 1.0))
    severe = next(node for node in of_class(svg, "band") if "sev-severe" in node.get("class"))
    whisker = of_class(svg, "whisker")[0]
    assert place(whisker, "x1") == pytest.approx(place(severe, "x"), abs=0.02)
    assert place(whisker, "x2") == pytest.approx(place(severe, "x") + place(severe, "width"), abs=0.02)


@pytest.mark.parametrize("excess", [1e-6, 0.004, 0.3, 3.0, 40.0])
def test_any_excess_is_on_the_axis_with_its_thresholds(excess):
    svg = threshold(excess, (excess * 0.8, excess * 1.2), floor=1e-7, detectable=1e-5)
    assert 0 < place(of_class(svg, "estimate")[0], "cx") < 100
    assert {"0.01", "0.05", "0.2", "1"} <= set(texts(svg))
    assert len(of_class(svg, "floor")) == len(of_class(svg, "detectable")) == 1


def test_an_excess_of_zero_or_less_is_marked_as_off_the_axis():
    svg = threshold(-1e-5, (-3e-5, 1e-5))
    assert place(of_class(svg, "estimate")[0], "cx") == 0
    assert any(text.startswith("◂ excess −1.0×10⁻⁵") for text in texts(svg))


def test_a_floor_of_zero_has_no_line_and_is_said():
    svg = threshold(0.3, None)
    assert not of_class(svg, "floor")
    assert "◂ noise floor exactly 0" in texts(svg)


def test_without_an_interval_there_is_no_whisker():
    assert not of_class(threshold(0.3, None), "whisker")


def test_names_of_narrow_bands_do_not_share_a_line():
    rows = {
        node.text: node.get("y")
        for node in threshold(1e-6, (5e-7, 2e-6)).iter("text")
        if node.text in {"mild", "moderate", "severe", "collapse"}
    }
    assert rows["mild"] != rows["moderate"] != rows["severe"] != rows["collapse"]


EDGES = tuple(10.0**power for power in range(-4, 2))


def bars(svg):
    return [node for node in svg.iter("rect") if node.get("class") == "bar"]


def test_bar_heights_are_shares_of_all_positions():
    svg = parsed(histogram_chart(Histogram(edges=EDGES, counts=(10, 40, 20, 5, 0), below=25, above=0), ()))
    heights = {node[0].text: float(node.get("height")) for node in bars(svg)}
    assert len(heights) == 5
    tallest = heights["0.001 to 0.01 nats: 40 positions"]
    assert heights["0.0001 to 0.001 nats: 10 positions"] == pytest.approx(tallest / 4, rel=1e-4)
    assert heights["below 0.0001 nats, exact zeros included: 25 positions"] == pytest.approx(
        tallest * 25 / 40, rel=1e-4
    )


def test_bins_of_unequal_width_are_drawn_by_density():
    svg = parsed(histogram_chart(Histogram(edges=(0.01, 0.1, 10.0), counts=(10, 20), below=0, above=0), ()))
    one, two = bars(svg)
    assert place(two, "width") == pytest.approx(2 * place(one, "width"), abs=0.05)
    assert float(two.get("height")) == pytest.approx(float(one.get("height")))


def test_bins_are_as_wide_as_their_decades():
    svg = parsed(histogram_chart(Histogram(edges=EDGES, counts=(1, 1, 1, 1, 1), below=0, above=0), ()))
    assert [place(node, "width") for node in bars(svg)] == pytest.approx([20] * 5, abs=0.02)


def test_empty_bins_at_the_ends_are_not_drawn():
    svg = parsed(histogram_chart(Histogram(edges=EDGES, counts=(0, 0, 7, 0, 0), below=0, above=0), ()))
    (only,) = bars(svg)
    assert place(only, "width") == pytest.approx(100, abs=0.05)


def test_a_bin_that_begins_at_zero_counts_as_below():
    svg = parsed(histogram_chart(Histogram(edges=(0.0, 0.1, 1.0), counts=(5, 5), below=1, above=0), ()))
    assert "below 0.1 nats, exact zeros included: 6 positions" in [node[0].text for node in bars(svg)]


def test_marks_stand_at_their_values_each_on_a_line_of_its_own():
    marks = (Mark(0.01, "median 0.01", "median"), Mark(0.1, "mean 0.1", "mean"), Mark(1.0, "p99 1", "tail"))
    svg = parsed(histogram_chart(Histogram(edges=EDGES, counts=(1, 1, 1, 1, 1), below=0, above=0), marks))
    assert [place(of_class(svg, mark.kind)[0], "x1") for mark in marks] == pytest.approx([40, 60, 80], abs=0.02)
    rows = [node.get("y") for node in svg.iter("text") if node.text in {mark.label for mark in marks}]
    assert len(set(rows)) == 3


def test_a_mark_outside_the_bins_widens_the_axis():
    marks = (Mark(1e-6, "noise floor", "floor"),)
    svg = parsed(histogram_chart(Histogram(edges=EDGES, counts=(1, 1, 1, 1, 1), below=0, above=0), marks))
    assert place(of_class(svg, "floor")[0], "x1") == pytest.approx(0, abs=0.01)
    assert place(bars(svg)[0], "x") == pytest.approx(100 * 2 / 7, abs=0.02)


@pytest.mark.parametrize(
    ("below", "above", "said"),
    [(9, 0, "exactly zero"), (0, 0, "no position"), (1, 3, "75.0 % of positions lie over the axis")],
)
def test_a_histogram_without_a_filled_bin_says_why(below, above, said):
    svg = parsed(histogram_chart(Histogram(edges=EDGES, counts=(0,) * 5, below=below, above=above), ()))
    assert said.casefold() in " ".join(texts(svg)).casefold()


def test_a_strip_draws_mean_interval_and_guides_that_are_on_its_axis():
    svg = parsed(
        interval_strip("code", 0.1, (0.01, 1.0), LogScale(0.01, 1.0), [Guide(0.1, "overall"), Guide(5.0, "threshold")])
    )
    assert place(of_class(svg, "point")[0], "cx") == pytest.approx(50)
    assert (place(of_class(svg, "whisker")[0], "x1"), place(of_class(svg, "whisker")[0], "x2")) == (0, 100)
    assert len(of_class(svg, "overall")) == 1
    assert not of_class(svg, "threshold")


def test_a_share_fills_its_part():
    assert place(bars(parsed(share_bar("engine", 0.3)))[0], "width") == pytest.approx(30)


def test_an_axis_labels_round_values_where_they_are():
    labels = {node.text: place(node, "x") for node in parsed(axis(LinearScale(-1.0, 1.0), "Δp")).iter("text")}
    assert labels["0"] == 50
    assert (labels["−1"], labels["1"]) == (0, 100)


@pytest.mark.parametrize(
    "scale",
    [
        LogScale(1.2e-4, 0.02),
        LogScale(8e-5, 0.9),
        LogScale(1.1e-7, 2.4e-6),
        LogScale(0.0019, 0.011),
        LinearScale(-0.022, 0.019),
        LinearScale(-0.0052, 0.0061),
        LinearScale(0.0, 1.04e5),
    ],
)
def test_labels_of_an_axis_below_strips_do_not_touch_where_the_column_is_narrow(scale):
    spans = []
    for node in parsed(axis(scale, "KL")).iter("text"):
        at, width = place(node, "x"), 100 * 6.6 * len(node.text) / 150
        start = at - (width if "end" in node_class(node) else width / 2 if "mid" in node_class(node) else 0.0)
        spans.append((start, start + width))
    assert spans
    assert all(after[0] > before[1] for before, after in pairwise(spans))


@pytest.mark.parametrize(
    "markup",
    [
        interval_strip('<b>"&', 0.1, None, LogScale(0.01, 1.0)),
        share_bar("</title><script>alert(1)</script>", 0.5),
        histogram_chart(Histogram(edges=EDGES, counts=(1,) * 5, below=0, above=0), (Mark(0.1, "<i>", "mean"),)),
    ],
)
def test_texts_are_escaped_and_every_chart_has_a_title(markup):
    svg = parsed(markup)
    assert svg.find("title").text
    assert {node.tag for node in svg.iter()} <= {"svg", "title", "desc", "rect", "line", "circle", "text"}


@pytest.mark.parametrize("excess", [1e-5, 0.004, 0.02, 0.07, 0.3, 2.0, 40.0])
def test_the_label_of_the_excess_ends_inside_a_chart_on_a_telephone(excess):
    interval = (0.4 * excess, 1.62345 * excess)
    (label,) = [text for text in threshold(excess, interval).iter("text") if (text.text or "").startswith("excess")]
    # DejaVu Sans Bold at 12 px has 7.14 for such a label: its digits are wider than those of the plain face.
    width = 100 * 7.2 * len(label.text) / 330
    at, classes = float(label.get("x").removesuffix("%")), label.get("class").split()
    left = at - (width / 2 if "mid" in classes else width if "end" in classes else 0)
    assert left >= -0.01
    assert left + width <= 100.01
