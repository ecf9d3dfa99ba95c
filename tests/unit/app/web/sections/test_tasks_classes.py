"""What a page and a terminal say of the kinds of answers that flip."""

import io
from typing import Any

import pytest
from rich.console import Console

from app.kinds.tasks.report import TasksReport
from app.web.report import render
from app.web.sections.tasks_classes import AnswersByClass, answers_by_class, class_sentence
from app.web.terminal import render_terminal
from tests.support.html import tree
from tests.support.tasks_reports import task, tasks_report, tasks_variants

VARIANTS = tasks_variants()


def view(name: str) -> AnswersByClass:
    return answers_by_class(TasksReport.model_validate(VARIANTS[name]))


def changed(one: dict[str, Any], **fields: Any) -> str:
    """The sentence over a task whose first class has these fields."""
    found = one["token_classes"]
    rows = [found["classes"][0] | fields, *found["classes"][1:]]
    return class_sentence(TasksReport.model_validate(tasks_report(one | {"token_classes": found | {"classes": rows}})))


def test_a_kind_that_flips_more_is_named_with_both_rates_and_their_intervals() -> None:
    """Of 300 items with numbers 36 flip to wrong and 7 to right, of the 700 others 29."""
    assert view("several").sentence == (
        "On hellaswag items whose answers hold numbers flip more often than the others: 14.3 % [8.3, 20.3] "
        "against 4.1 % [0.0, 10.1] (p < 0.001, Holm)."
    )


def test_a_kind_that_flips_less_and_a_question_are_told_so() -> None:
    one = task("arc", "worse")
    less = changed(one, rate={"mean": 0.01, "ci": (0.0, 0.02)}, fisher_p_holm=0.02)
    assert "flip less often than the others: 1.0 % [0.0, 2.0] against 4.1 % [0.0, 10.1] (p = 0.020, Holm)" in less
    one["token_classes"]["where"] = "question"
    assert "items whose questions hold numbers flip" in changed(one)


def test_of_many_the_surest_are_told_and_the_others_counted() -> None:
    tasks = tuple(task(f"t{number}", "worse") for number in range(5))
    said = class_sentence(TasksReport.model_validate(tasks_report(*tasks)))
    assert said.count("flip more often") == 3
    assert said.endswith("So do 2 more, by the table.")


def test_what_is_not_shown_or_cannot_be_is_said() -> None:
    assert view("one").sentence.startswith("No kind of answer is shown to flip more or less often than the others")
    chance = TasksReport.model_validate(tasks_report(task("a", "at_chance")))
    assert "answers are at chance" in class_sentence(chance)
    assert changed(task("arc", "worse"), outcome="at_chance").startswith("No kind of answer is shown")
    assert "no kind has enough items" in view("not-told").sentence


def test_a_table_has_every_figure_of_a_kind() -> None:
    table = view("several").tasks[0].items
    numbers, names, punctuation, rare, none = table.rows
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert [cell.text for cell in numbers] == [
        "Numbers",
        "300",
        "62.0",
        "52.3",
        "−9.7",
        "36, 7",
        "59.7",
        "14.3",
        "4.1",
        "1.2×10⁻⁴",
        "1.2×10⁻⁴",
        "worse",
    ]
    assert numbers[1].note == "30.0 %"
    assert numbers[7].note == "[8.3, 20.3]"
    assert [row[-1].text for row in (names, punctuation, rare, none)] == [
        "not shown",
        "every item",
        "too few items",
        "not shown",
    ]
    assert [row[9].text for row in (punctuation, rare)] == ["–", "–"]
    assert punctuation[8].text == "–", "there are no others"
    assert {row[-1].text for row in view("several").tasks[2].items.rows} >= {"at chance", "every item"}


def test_log_probabilities_are_told_of_choices_alone() -> None:
    found = {one.name: one for one in view("several").tasks}
    assert found["gsm8k"].tokens.rows == ()
    rows = found["hellaswag"].tokens.rows
    assert [row[0].text for row in rows][-1] == "All tokens"
    assert (rows[0][3].text, rows[0][3].note) == ("−0.62", "[−0.72, −0.52]")


@pytest.mark.parametrize("name", VARIANTS)
def test_the_page_and_the_terminal_say_it(name: str) -> None:
    page = tree(render(VARIANTS[name]))
    section = page.one("section", id_="classes")
    sentence = view(name).sentence
    assert sentence in " ".join(section.text.split())
    tables = list(section.all("table"))
    assert len(tables) == sum(bool(one.items.rows) + bool(one.tokens.rows) for one in view(name).tasks)
    stream = io.StringIO()
    render_terminal(VARIANTS[name], Console(file=stream, width=400, color_system=None))
    assert sentence in stream.getvalue()
