"""Domains and kinds of token of a surface report, on the page and in a terminal."""

import pytest

from app.kinds.surface import slices
from app.kinds.surface.slices import kinds_sentence
from app.reports.classes import definitions
from app.reports.render import render
from tests.support.html import tree
from tests.support.surface_reports import surface_variant, surface_variants
from tests.support.terminal import printed

VARIANTS = surface_variants()
LINE = "No kind of token can be judged alone: each has too few documents ("


def test_every_kind_is_a_row_the_one_that_departs_most_first_and_the_rest_last():
    report = surface_variant("both-orders")
    table = slices.token_classes(report)
    told = report.token_classes
    names = [row[0].text for row in table.rows]
    averages = {one.title: abs(one.average.mean) for one in told.classes}
    assert set(averages) == {"Numbers", "Code", "Names", "Rare tokens"}
    assert names == [*sorted(averages, key=averages.get, reverse=True), "In no class"]
    heads = [column.label for column in table.columns]
    rows = {row[0].text: dict(zip(heads, row, strict=True)) for row in table.rows}
    numbers = next(one for one in told.classes if one.name == "numbers")
    row = rows["Numbers"]
    assert row["Kind"].note == "40 documents, 1,200 tokens"
    average = row["Average I, nats per token, p corrected"]
    assert float(average.text) == pytest.approx(numbers.average.mean, rel=0.01)
    assert average.note.startswith("[") and average.note.endswith("], p < 0.001") and average.strong
    assert numbers.average_p < 0.001
    left = rows["In no class"]["Average I, nats per token, p corrected"]
    assert left.note.endswith("]") and not left.strong
    assert [rows["Code"][head].note for head in heads[1:]] == [""] * (len(heads) - 1)
    assert (rows["Code"]["Largest I"].text, rows["Code"][""].text) == ("–", "too few documents")


def test_what_each_part_loses_at_every_setting_is_folded():
    report = surface_variant("both-orders")
    section = tree(render(VARIANTS["both-orders"])).one(id_="classes")
    assert "KL of each kind at every setting" in section.text
    assert [one.name for one in definitions(report.token_classes.classes)] == [
        one.title for one in report.token_classes.classes
    ]
    for table, parts in (
        (slices.kinds_by_setting(report), {one.title: one for one in report.token_classes.classes}),
        (slices.domains_by_setting(report), report.domains),
    ):
        assert len(table.rows) == len(report.points)
        for name, part in parts.items():
            column = [one.label for one in table.columns].index(name)
            for row, mean in zip(table.rows, part.kl_by_setting, strict=True):
                if mean.mean and mean.mean > 0.01:
                    assert float(row[column].text) == pytest.approx(mean.mean, rel=0.05)
                assert row[column].note.startswith("[") == (mean.ci is not None)


def test_the_sentence_says_no_more_than_was_shown():
    found = surface_variant("both-orders").token_classes.classes
    assert kinds_sentence([one.model_copy(update={"average_p": None}) for one in found]) == ""
    none = [one.model_copy(update={"average_p": 0.2}) for one in found]
    assert kinds_sentence(none) == (
        "On average over the settings no kind of token is shown to depart from adding up, by p values corrected over "
        "the 4 kinds that have an interval (Holm)."
    )
    one = next(one for one in found if one.name == "numbers")
    assert kinds_sentence([one]) == "On average over the settings the damages compound in numbers."


def test_where_no_kind_can_be_judged_page_and_terminal_say_why():
    few = surface_variant("broken")
    assert slices.token_classes(few).rows == () and slices.token_classes_note(few).startswith(LINE)
    assert slices.kinds_by_setting(few).rows == () and slices.domains_by_setting(few).rows == ()
    assert LINE in printed(VARIANTS["broken"], 200, details=True)
