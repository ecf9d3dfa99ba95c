"""What a tasks report decides and counts: the worst outcome, which task the figures are of, which answers flip."""

from typing import get_args

import pytest

from app.kinds.tasks.answers import (
    examples,
    metrics_table,
    predictions_table,
    results_table,
    significance_table,
)
from app.kinds.tasks.report import Outcome, TasksReport
from app.kinds.tasks.token_classes import class_sentence, which_answers
from app.kinds.tasks.view import blocks, figures, heading, outcome, verdict
from app.reports.blocks import Chart, Fold, Note, Section, Table
from app.reports.render import render
from tests.support.html import tree
from tests.support.tasks_reports import task, tasks_report, tasks_variants
from tests.support.terminal import printed

VARIANTS = tasks_variants()
MOST_LINES = 38  # of 40: the command adds the path of the page and the outcome of a rule


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


def test_the_worst_that_is_shown_is_the_heading():
    assert heading(variant("several")) == "Worse"
    assert heading(variant("one")) == "Equivalent"
    assert heading(variant("first")) == "Undecided"
    mixed = report(task("a", "equivalent"), task("b", "at_chance"))
    assert heading(mixed) == "At chance"
    assert outcome(mixed).startswith("Of 2 tasks: 1 equivalent, 1 at chance.")


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


def test_the_verdict_names_each_task_with_its_outcome():
    found = report(*(task(f"t-{outcome}", outcome) for outcome in get_args(Outcome)))
    said = verdict(found.model_copy(update={"unscored": ("coqa",)}))
    for words in (
        "worse on t-worse",
        "better on t-better",
        "equivalent on t-equivalent",
        "undecided on t-inconclusive",
    ):
        assert words in said.split(". ")[0]
    assert said.split(". ")[1].startswith("On t-at_chance the reference is at chance")
    assert said.endswith(" coqa could not be scored.")
    for one in get_args(Outcome):
        said = verdict(report(task("arc", one)))
        assert "72 of 1,000 items flip, 60 to wrong and 12 to right" in said
        assert ("−4.8 [−6.5, −3.1] points" in said) == (one != "at_chance"), "there it says nothing of the candidate"


def test_the_first_figure_counts_the_tasks_by_outcome():
    first = figures(variant("several"))[0]
    assert (first.value, first.unit) == ("1 of 5", "tasks worse")
    assert first.note == "1 better, 1 equivalent, 1 undecided, 1 at chance"
    first = figures(report(task("a", "at_chance"), task("b", "at_chance")))[0]
    assert (first.value, first.unit, first.note) == ("2 of 2", "tasks at chance", "")
    assert figures(variant("one"))[0].label == "Difference", "of one task there is nothing to count"


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


def test_every_task_has_its_rows():
    found = variant("several")
    tables = [results_table(found), significance_table(found), predictions_table(found)]
    for table in tables:
        assert texts(table, "Task") == ["hellaswag", "arc", "mmlu", "gsm8k", "humaneval"]
        assert all(len(row) == len(table.columns) for row in table.rows)
    assert texts(tables[0], "Outcome") == ["worse", "equivalent", "at chance", "undecided", "better"]
    assert texts(tables[1], "McNemar, p")[0] == "under 10⁻⁴", "it never reads as zero"
    assert texts(tables[2], "Within") == ["yes", "no", "at chance", "yes", "yes"]


def test_without_text_there_are_ids_alone():
    table, note = examples(variant("no-text"))[:2]
    assert isinstance(table, Table) and isinstance(note, Note)
    assert [column.label for column in table.columns] == ["Item", "Flip"]
    assert "store_text" in note.text
    first = examples(variant("several"))[0]
    assert isinstance(first, Table) and len(first.columns) == 6


@pytest.mark.parametrize(("name", "band"), [("first", False), ("several", True), ("identical", None)])
def test_without_runs_there_is_no_band_and_without_kl_no_chart(name, band):
    charts = [one for one in section(variant(name), "flips") if isinstance(one, Chart)]
    assert [("Band" in one.svg) for one in charts] == ([] if band is None else [band])


def test_the_short_output_fits_its_lines_and_no_name_commands_the_page_or_the_terminal():
    for name, body in VARIANTS.items():
        text = printed(body, 80)
        commands = sum(len(line) // 80 for line in text.splitlines())
        assert len(text.splitlines()) + commands <= MOST_LINES, name
        assert not set(printed(body, 120, details=True)) & set("\x1b\x07\x00\u202e"), name
        page = tree(render(body))
        assert not list(page.all("script")) and not list(page.all("b", class_="x")), name


# --- which answers flip


def changed(one, **fields):
    """The sentence over a task whose first class has these fields."""
    found = one["token_classes"]
    rows = [found["classes"][0] | fields, *found["classes"][1:]]
    return class_sentence(report(one | {"token_classes": found | {"classes": rows}}))


def class_tables(found):
    (folded,) = (one for one in which_answers(found).blocks if isinstance(one, Fold))
    return [one for one in folded.blocks if isinstance(one, Table)]


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


def test_a_table_has_every_figure_of_a_class():
    tables = class_tables(variant("several"))
    table = tables[0]
    numbers, *_ = table.rows
    assert all(len(row) == len(one.columns) for one in tables for row in one.rows)
    assert [cell.text for cell in numbers] == [
        "Numbers",
        "300",
        "62.0",
        "52.3",
        "36, 7",
        "−9.7",
        "59.7",
        "14.3",
        "4.1",
        "1.2×10⁻⁴",
    ]
    assert (numbers[1].note, numbers[7].note) == ("30.0 %", "[8.3, 20.3]")
    assert texts(table, "Fisher, Holm’s p")[2:4] == ["–", "–"]
    assert texts(table, "Flips of others, %")[2] == "–", "there are no others"
