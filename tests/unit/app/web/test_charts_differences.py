"""Differences as markup: places against arithmetic by hand."""

from xml.etree import ElementTree

from app.web.charts_differences import Gap, differences_chart

# The axis: -0.2 to 0.3, with 3 % of its width added at each end: -0.215 to 0.315.
GAPS = (
    Gap("b − a", "−0.10 [−0.20, −0.05]", -0.1, (-0.2, -0.05), "better"),
    Gap("c − a", "+0.20 [0.10, 0.30]", 0.2, (0.1, 0.3), "worse"),
    Gap("<c>", "+0.01", 0.01, None, "no difference shown"),
)


def place(value: float) -> str:
    return f"{100 * (value + 0.215) / 0.53:.2f}%"


def drawn() -> ElementTree.Element:
    return ElementTree.fromstring(
        str(differences_chart(GAPS, title="T", unit="nats", left="first better", right="second better"))
    )


def test_points_and_whiskers_stand_where_the_numbers_are() -> None:
    root = drawn()
    assert [one.get("cx") for one in root.iter("circle")] == [place(value) for value in (-0.1, 0.2, 0.01)]
    flat = [one for one in root.iter("line") if one.get("class") == "whisker" and one.get("y1") == one.get("y2")]
    assert [(one.get("x1"), one.get("x2")) for one in flat] == [
        (place(-0.2), place(-0.05)),
        (place(0.1), place(0.3)),
    ]


def test_zero_is_a_line_through_all_rows() -> None:
    [zero] = [one for one in drawn().iter("line") if one.get("class") == "base" and one.get("x1") == one.get("x2")]
    assert zero.get("x1") == place(0.0)
    heights = [float(one.get("cy") or 0) for one in drawn().iter("circle")]
    assert float(zero.get("y1") or 0) < min(heights) < max(heights) < float(zero.get("y2") or 0)


def test_what_is_shown_differs_from_what_is_not_by_more_than_colour() -> None:
    assert [one.get("class") for one in drawn().iter("circle")] == ["point gain", "point loss", "ring"]


def test_it_is_told_in_words_too() -> None:
    texts = ["".join(one.itertext()) for one in drawn().iter("text")]
    assert {"◂ first better", "second better ▸", "<c>", "nats"} <= set(texts)
    [told] = ["".join(one.itertext()) for one in drawn().iter("desc")]
    assert "c − a: +0.20 [0.10, 0.30]" in told


def test_no_difference_at_all_still_has_an_axis() -> None:
    chart = differences_chart([Gap("b − a", "0", 0.0, (0.0, 0.0), "equal")], title="T", unit="u", left="l", right="r")
    root = ElementTree.fromstring(str(chart))
    assert [one.get("cx") for one in root.iter("circle")] == ["50.00%"]
