"""The matrix of decoders and candidates as markup."""

from xml.etree import ElementTree

import pytest

from app.reports.charts.matrix import MatrixCell, matrix_chart

CELLS = [[MatrixCell("0.1", "0.1 nats", 1), MatrixCell("<2>", "2 nats", 7)], [MatrixCell("–", "none", 0)] * 2]


def test_every_cell_stands_in_its_row_and_column_with_its_step():
    root = ElementTree.fromstring(str(matrix_chart("t", ["greedy", "beam"], ["A", "B"], CELLS)))
    cells = list(root.iter("rect"))
    assert [one.get("class") for one in cells] == ["heat h1", "heat h7", "heat h0", "heat h0"]
    assert cells[0].get("x") == cells[2].get("x") != cells[1].get("x")
    assert cells[0].get("y") == cells[1].get("y") != cells[2].get("y")
    assert cells[1].find("title").text == "2 nats"


def test_text_is_escaped_and_told_to_those_who_cannot_see():
    markup = str(matrix_chart("t", ["greedy", "beam"], ["A", "B"], CELLS))
    assert "<2>" not in markup
    assert "greedy: 0.1 nats, 2 nats" in ElementTree.fromstring(markup).find("desc").text


def test_four_columns_stay_inside():
    cell = MatrixCell("1", "1", 3)
    root = ElementTree.fromstring(str(matrix_chart("t", ["a"], list("ABCD"), [[cell] * 4])))
    ends = [float(one.get("x")[:-1]) + float(one.get("width")[:-1]) for one in root.iter("rect")]
    assert max(ends) <= 100


def test_cells_that_do_not_fit_the_names_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        matrix_chart("t", ["a"], ["A"], CELLS)
