"""The view of a tasks report: what its page and terminal say."""

import io
import re
from typing import Any

import pytest
from rich.console import Console

from app.kinds.tasks.report import TasksReport
from app.web.report import render
from app.web.sections.tasks import answers
from app.web.sections.tasks_words import heading, outcome
from app.web.terminal import render_terminal
from tests.support.html import tree
from tests.support.tasks_reports import task, tasks_report, tasks_variants

VARIANTS = tasks_variants()


def view(name: str):  # type: ignore[no-untyped-def]
    return answers(TasksReport.model_validate(VARIANTS[name]))


def printed(name: str, width: int, *, ascii_only: bool = False) -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii" if ascii_only else "utf-8", newline="\n")
    render_terminal(VARIANTS[name], Console(file=stream, width=width, color_system=None, legacy_windows=False))
    stream.flush()
    return stream.buffer.getvalue().decode()  # type: ignore[attr-defined]


def test_the_worst_that_is_shown_is_the_heading() -> None:
    assert view("several").heading == "Worse"
    assert view("several").bad
    assert (view("one").heading, view("one").good) == ("Equivalent", True)
    assert view("first").heading == "Undecided"
    mixed = TasksReport.model_validate(tasks_report(task("a", "equivalent"), task("b", "at_chance")))
    assert heading(mixed) == "At chance"
    assert outcome(mixed).startswith("Of 2 tasks: 1 equivalent, 1 at chance. The margin of equivalence is ± 2.0 points")


def test_the_first_figure_counts_the_tasks_by_outcome() -> None:
    first = view("several").figures[0]
    assert (first.value, first.unit) == ("1 of 5", "tasks worse")
    assert first.note == "1 better, 1 equivalent, 1 undecided, 1 at chance"
    same = TasksReport.model_validate(tasks_report(task("a", "at_chance"), task("b", "at_chance")))
    first = answers(same).figures[0]
    assert (first.value, first.unit, first.note) == ("2 of 2", "tasks at chance", "")
    assert view("one").figures[0].label == "Difference", "of one task there is nothing to count"


def test_figures_are_of_a_task_of_the_worst_outcome() -> None:
    """Not of the first task, whose numbers the heading does not speak of."""
    mixed = TasksReport.model_validate(tasks_report(task("a", "equivalent"), task("b", "inconclusive")))
    assert heading(mixed) == "Undecided"
    assert all(figure.note.startswith("b, ") for figure in answers(mixed).figures[1:])


def test_figures_are_of_the_task_that_is_worse() -> None:
    _, difference, flips, candidate = view("several").figures
    assert (difference.value, difference.note) == ("−4.8", "hellaswag, paired")
    assert (flips.value, flips.note) == ("7.2", "hellaswag, 60 to wrong, 12 to right")
    assert (candidate.label, candidate.value) == ("Candidate", "57.2")
    assert candidate.note == "hellaswag, 1,000 items; the reference 62.0 [59.0, 65.0]"


def test_figures_of_one_task_name_both_models() -> None:
    _, _, reference, candidate = view("one").figures
    assert (reference.label, candidate.label) == ("Reference", "Candidate")
    assert (reference.value, candidate.value) == ("62.0", "62.1")
    assert reference.note == candidate.note == "example, 1,000 items"


def few_items() -> dict[str, Any]:
    """40 items, 32 and 31 of them right: the interval supports no decimal of a point."""
    one = task("example", "inconclusive", items=40, harmful=2, helpful=1, right=0.8)
    one["difference"] = {"mean": -0.025, "ci": (-0.1452, 0.0869)}
    one["metrics"][0]["difference"] = one["difference"]
    one["reference"] = {"mean": 0.8, "ci": (0.6524, 0.895)}
    one["candidate"] = {"mean": 0.775, "ci": (0.6250, 0.8768)}
    one["sentence"] = "example: −2.5 points (95 % interval −14.5 to +8.7) in accuracy."
    return tasks_report(one)


def test_a_score_and_a_difference_read_the_same_wherever_they_stand() -> None:
    """A margin of two points is missed by half a point: whole points would not tell."""
    found = answers(TasksReport.model_validate(few_items()))
    difference, _, reference, candidate = found.figures
    assert (difference.value, difference.interval) == ("−2.5", "[−14.5, 8.7]")
    assert (reference.value, candidate.value) == ("80.0", "77.5")
    assert candidate.interval == "[62.5, 87.7]"
    [row] = found.results.rows
    assert [cell.text for cell in row[2:5]] == ["80.0", "77.5", "−2.5"]
    assert row[4].note == "[−14.5, 8.7]"
    [metric] = found.metrics.rows
    assert [cell.text for cell in metric[2:5]] == ["80.0", "77.5", "−2.5"]
    stream = io.StringIO()
    render_terminal(few_items(), Console(file=stream, width=120, color_system=None))
    assert {"80.0", "77.5", "−2.5"} <= set(stream.getvalue().split())
    assert "[−14.5, 8.7]" in stream.getvalue()


def test_a_bootstrap_of_hardly_any_flips_is_left_out_with_the_reason() -> None:
    few = answers(TasksReport.model_validate(few_items()))
    [cell] = [row[7] for row in few.tests.rows]
    assert (cell.text, cell.note) == ("–", "fewer than 8 flips")
    assert "left out where fewer than 8 items flip" in few.tests_note
    many = view("one")
    assert [row[7].note for row in many.tests.rows] == [""]
    assert many.tests.rows[0][7].text.startswith("[")
    assert "left out" not in many.tests_note


def test_one_miss_among_thousands_does_not_read_as_none() -> None:
    one = task("long", "equivalent", items=5000, harmful=1, helpful=0, right=1.0)
    found = answers(TasksReport.model_validate(tasks_report(one)))
    assert found.figures[3].value == found.results.rows[0][3].text == "99.98"
    assert found.figures[2].value == "100.0"


def test_every_task_has_its_rows() -> None:
    found = view("several")
    for table in (found.results, found.tests, found.predictions, found.power):
        assert [row[0].text for row in table.rows] == ["hellaswag", "arc", "mmlu", "gsm8k", "humaneval"]
        assert all(len(row) == len(table.columns) for row in table.rows)
    outcomes = [row[-1].text for row in found.results.rows]
    assert outcomes == ["worse", "equivalent", "at chance", "undecided", "better"]
    assert [row[3].text for row in found.predictions.rows] == ["yes", "no", "at chance", "yes", "yes"]


def test_a_small_p_never_reads_as_zero() -> None:
    assert view("several").tests.rows[0][1].text == "under 10⁻⁴"


def test_without_text_there_are_ids_alone() -> None:
    example = view("no-text").examples[0]
    assert [column.label for column in example.table.columns] == ["Item", "Flip", "Lead, nats a character"]
    assert "by what acc_norm compares" in example.note
    assert "not in this report" in example.note
    assert len(view("several").examples[0].table.columns) == 7


def test_without_runs_there_is_no_band() -> None:
    chart = view("first").chart
    assert chart is not None
    assert "Band" not in chart
    assert "Band: 95 % prediction interval for 1,000 items" in (view("several").chart or "")
    assert view("identical").chart is None


@pytest.mark.parametrize("name", VARIANTS)
def test_the_page_says_everything(name: str) -> None:
    page = tree(render(VARIANTS[name]))
    for section in ("answers", "results", "flips", "power", "verdict", "limits", "provenance", "reproduce"):
        assert page.one("section", id_=section).text, section
    assert "<script" not in render(VARIANTS[name])


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_says_it_in_its_width(name: str, width: int) -> None:
    text = printed(name, width)
    assert max(map(len, text.splitlines())) <= width
    assert view(name).heading.upper() in text
    for result in VARIANTS[name]["tasks"]:
        assert result["name"][:8] in text
    assert re.search(r"items (could show a difference from|are too few to show any difference)", " ".join(text.split()))
    assert "with 80 % power" in " ".join(text.split())


@pytest.mark.parametrize(("width", "p_values"), [(80, False), (100, False), (119, False), (120, True), (160, True)])
def test_a_row_of_the_terminal_breaks_no_word_and_no_number(width: int, p_values: bool) -> None:
    rows = [line.split() for line in printed("several", width).splitlines() if line.startswith(" ")]
    by_name = {row[0]: row for row in rows if row}
    for result, told in zip(
        VARIANTS["several"]["tasks"], ("worse", "equivalent", "at chance", "undecided", "better"), strict=True
    ):
        row = by_name[result["name"]]
        assert row[1] == f"{result['items']:,}"
        assert " ".join(row).endswith(f" {told}")
    assert ("9.0×10⁻⁹" in by_name["hellaswag"]) is p_values


@pytest.mark.parametrize(
    ("name", "level"), [("several", "at the 1 % level: 5 % divided by 5 tasks"), ("one", "at the 5 % level.")]
)
def test_what_could_be_shown_has_its_level(name: str, level: str) -> None:
    """Five tasks are corrected for, one is not."""
    assert level in view(name).power_note
    text = " ".join(printed(name, 120).split())
    assert level.removeprefix("at ").rstrip(".") in text
    assert "; at the rate that was found, from 2.4 points on." in text


def test_a_terminal_of_ascii_gets_no_other_sign() -> None:
    assert printed("several", 100, ascii_only=True).isascii()


def test_whose_definition_a_task_has_is_told_beside_its_metric() -> None:
    page = answers(TasksReport.model_validate(tasks_variants()["harness"]))
    ours, first, second = (row[0] for row in page.results.rows)
    assert ours.note == "acc_norm (a character)"
    assert (first.text, first.note) == ("arc_easy", "acc; lm-evaluation-harness 0.4.13, no examples")
    assert second.note == "exact_match,strict-match; gsm8k of lm-evaluation-harness 0.4.13, 5 solved examples"


def test_a_side_that_gives_no_number_is_warned_of_on_page_and_terminal() -> None:
    broken = task("a", "worse") | {
        "not_finite_reference": {"positions": 0, "items": 0},
        "not_finite_candidate": {"positions": 160, "items": 80},
    }
    told = "On a the candidate gives no number (NaN or infinity) at 160 tokens of choices, in 80 of 1000 items"
    report = tasks_report(broken) | {"warnings": [told]}
    stream = io.StringIO()
    render_terminal(report, Console(file=stream, width=120))
    assert told in " ".join(stream.getvalue().split())
    assert told in tree(render(report)).text
