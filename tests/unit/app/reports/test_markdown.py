"""A report as Markdown."""

from app.reports.blocks import Cell, Column, Note, Table
from app.reports.markdown import render_markdown


def test_text_of_others_is_neither_markup_nor_a_cell_of_its_own() -> None:
    hostile = "a|b\n# c <img src=x> [d](e) `f` *g* @h"
    table = Table("T", (Column("x", "name"),), ((Cell(hostile),),), brief=True)
    text = render_markdown([Note(hostile, kind="plain", brief=True), table])
    shown = r"a\|b \# c \<img src=x\> \[d\](e) \`f\` \*g\* @h"
    assert text.splitlines()[0] == shown
    assert text.splitlines()[-1] == f"| {shown} |"


def test_charts_and_what_is_not_brief_stay_out() -> None:
    table = Table("T", (Column("x", "name"), Column("y", "chart")), ((Cell("1"), Cell()),), brief=True)
    assert render_markdown([Note("long"), table]) == "**T**\n\n| x |\n| :-- |\n| 1 |\n"
