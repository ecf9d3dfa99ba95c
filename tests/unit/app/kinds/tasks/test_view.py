"""What a tasks report decides and counts: the worst outcome, which task the figures are of, which answers flip."""

import pytest

from app.kinds.tasks.answers import (
    examples,
    metrics_table,
    results_table,
)
from app.kinds.tasks.report import TasksReport
from app.kinds.tasks.token_classes import class_sentence
from app.kinds.tasks.view import blocks, figures, heading, outcome
from app.reports.blocks import Chart, Note, Section, Table
from tests.support.tasks_reports import task, tasks_report, tasks_variants
from tests.support.terminal import printed

VARIANTS = tasks_variants()


def report(*tasks):
    return TasksReport.model_validate(tasks_report(*tasks))


def variant(name):
    return TasksReport.model_validate(VARIANTS[name])


def section(found, name):
    return [inner for one in blocks(found) if isinstance(one, Section) and one.id == name for inner in one.blocks]


def texts(table, column):
    place = [one.label for one in table.columns].index(column)
    return [row[place].text for row in table.rows]


def notes(table, column):
    place = [one.label for one in table.columns].index(column)
    return [row[place].note for row in table.rows]


@pytest.mark.parametrize(
    ("outcomes", "unscored", "kind"),
    [
        (["equivalent", "better"], [], "good"),
        (["equivalent", "inconclusive"], [], "alert"),
        (["equivalent"], ["coqa"], "alert"),
        (["equivalent", "worse"], [], "bad"),
        (["worse"], ["coqa"], "bad"),
    ],
)
def test_only_what_is_shown_for_every_task_is_good(outcomes, unscored, kind):
    made = tasks_report(*(task(f"t{number}", one) for number, one in enumerate(outcomes)))
    found = TasksReport.model_validate(made | {"unscored": unscored})
    alert = next(one for one in section(found, "answers") if isinstance(one, Note) and one.text == outcome(found))
    assert alert.kind == kind
    assert heading(found).endswith("; 1 task could not be scored") == bool(unscored)


def test_figures_are_of_a_task_of_the_worst_outcome():
    """Not of the first task, which the heading is not about."""
    found = figures(report(task("a", "equivalent"), task("b", "inconclusive")))
    assert all(figure.note.startswith("b, ") for figure in found[1:])
    _, difference, flips, candidate = figures(variant("several"))
    assert (difference.value, difference.note) == ("−4.8", "hellaswag, paired")
    assert (flips.value, flips.note) == ("7.2", "hellaswag, 60 to wrong, 12 to right")
    assert (candidate.value, candidate.note) == ("57.2", "hellaswag, 1,000 items; the reference 62.0 [59.0, 65.0]")


def few_items():
    """40 items, 32 and 31 of them right: the interval supports no decimal of a point."""
    one = task("example", "inconclusive", items=40, harmful=2, helpful=1, right=0.8)
    one["difference"] = {"mean": -0.025, "ci": (-0.1452, 0.0869)}
    one["metrics"][0]["difference"] = one["difference"]
    one["reference"] = {"mean": 0.8, "ci": (0.6524, 0.895)}
    one["candidate"] = {"mean": 0.775, "ci": (0.6250, 0.8768)}
    return one


def test_a_score_and_a_difference_are_the_same_in_figures_tables_and_terminal():
    """A margin of two points is missed by half a point, which whole points would hide."""
    found = report(few_items())
    difference, _, reference, candidate = figures(found)
    assert (difference.value, difference.interval) == ("−2.5", "[−14.5, 8.7]")
    assert (reference.value, candidate.value) == ("80.0", "77.5")
    assert candidate.interval == "[62.5, 87.7]"
    for table in (results_table(found), metrics_table(found)):
        for column, value in (("Reference, %", "80.0"), ("Candidate, %", "77.5"), ("Difference, points", "−2.5")):
            assert texts(table, column) == [value]
        assert notes(table, "Difference, points") == ["[−14.5, 8.7]"]
    assert {"80.0", "77.5", "−2.5", "[−14.5,", "8.7]"} <= set(printed(tasks_report(few_items()), 80).split())


def test_one_miss_among_thousands_does_not_read_as_none():
    found = report(task("long", "equivalent", items=5000, harmful=1, helpful=0, right=1.0))
    assert [figure.value for figure in figures(found)[2:]] == ["100.0", "99.98"]
    assert texts(results_table(found), "Candidate, %") == ["99.98"]


def test_without_text_there_are_ids_alone():
    table, note = examples(variant("no-text"))[:2]
    assert isinstance(table, Table) and isinstance(note, Note)
    assert [column.label for column in table.columns] == ["Item", "Flip"]
    assert "--store-text" in note.text
    first = examples(variant("several"))[0]
    assert isinstance(first, Table) and len(first.columns) == 6


@pytest.mark.parametrize(("name", "band"), [("first", False), ("several", True), ("identical", None)])
def test_without_runs_there_is_no_band_and_without_kl_no_chart(name, band):
    charts = [one for one in section(variant(name), "flips") if isinstance(one, Chart)]
    assert [("Band" in one.svg) for one in charts] == ([] if band is None else [band])


# --- which answers flip


def changed(one, **fields):
    """The sentence over a task whose first class has these fields."""
    found = one["token_classes"]
    rows = [found["classes"][0] | fields, *found["classes"][1:]]
    return class_sentence(report(one | {"token_classes": found | {"classes": rows}}))


def test_a_class_that_flips_more_or_less_is_named_with_both_rates_and_their_intervals():
    """Of 300 items with numbers 36 flip to wrong and 7 to right, of the 700 others 29."""
    said = class_sentence(variant("several"))
    assert "flip more" in said and "14.3 % [8.3, 20.3] against 4.1 % [0.0, 10.1] (p < 0.001, Holm)" in said
    less = changed(task("arc", "worse"), rate={"mean": 0.01, "ci": (0.0, 0.02)}, fisher_p_holm=0.02)
    assert "flip less" in less and "1.0 % [0.0, 2.0] against 4.1 % [0.0, 10.1] (p = 0.020, Holm)" in less


def test_what_is_not_shown_or_not_known_names_no_task():
    at_chance = class_sentence(report(task("a", "at_chance")))
    too_few = class_sentence(variant("not-told"))
    not_shown = class_sentence(variant("one"))
    assert len({at_chance, too_few, not_shown}) == 3
    assert not any("flip more often than the others:" in said for said in (at_chance, too_few, not_shown))
