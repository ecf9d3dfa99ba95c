"""Differences as markup: places against arithmetic by hand."""

from xml.etree import ElementTree

import numpy as np

from app.reports.charts.differences import Gap, differences_chart

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


def span(line: ElementTree.Element) -> tuple[float, float]:
    return float(line.get("y1") or 0), float(line.get("y2") or 0)


def test_zero_is_a_line_through_every_row() -> None:
    zero = [one for one in drawn().iter("line") if one.get("class") == "base" and one.get("x1") == one.get("x2")]
    assert {one.get("x1") for one in zero} == {place(0.0)}
    heights = [float(one.get("cy") or 0) for one in drawn().iter("circle")]
    assert [[above < y < below for y in heights] for above, below in map(span, zero)] == np.eye(3).astype(bool).tolist()


def test_what_is_shown_differs_from_what_is_not_by_more_than_colour() -> None:
    assert [one.get("class") for one in drawn().iter("circle")] == ["point gain", "point loss", "ring"]


def test_what_cannot_be_judged_has_another_mark_than_no_difference() -> None:
    gaps = [Gap("prose", "−0.2", -0.2, None, "cannot be judged"), Gap("code", "0.1", 0.1, None, "no difference shown")]
    root = ElementTree.fromstring(str(differences_chart(gaps, title="T", unit="u", left="l", right="r")))
    [ring] = root.iter("circle")
    [cross] = [one for one in root.iter("text") if one.text == "×"]
    assert ring.get("class") == "ring"
    assert cross.get("x") == f"{100 * 0.009 / 0.318:.2f}%"  # the axis: -0.2 to 0.1, and 3 % of its width at each end


def test_it_is_told_in_words_too() -> None:
    texts = ["".join(one.itertext()) for one in drawn().iter("text")]
    assert {"◂ first better", "second better ▸", "<c>", "nats"} <= set(texts)
    [told] = ["".join(one.itertext()) for one in drawn().iter("desc")]
    assert "c − a: +0.20 [0.10, 0.30]" in told
