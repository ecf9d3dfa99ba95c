"""The view of a trajectory report: what is said, how it is named, what is escaped."""

import pytest
from rich.console import Console

from app.contracts.trajectory_report import TrajectoryReport
from app.web.report import render
from app.web.reproduce_trajectory import trajectory_command
from app.web.sections.trajectory import heading, trajectory
from app.web.sections.trajectory_words import median_of, shaping_name
from app.web.terminal import render_terminal
from tests.support.trajectory_reports import trajectory_report, trajectory_variants

VARIANTS = trajectory_variants()


def report(name):
    return TrajectoryReport.model_validate(VARIANTS[name])


@pytest.mark.parametrize("name", VARIANTS)
def test_every_situation_is_drawn_and_printed(name):
    assert "Where the texts part" in render(VARIANTS[name])
    for width in (80, 130):
        console = Console(width=width, record=True, file=None, quiet=True)
        render_terminal(VARIANTS[name], console)


def test_the_heading_is_what_the_first_decoder_says():
    assert heading(report("one")) == "Amplification not shown"
    assert heading(report("same")) == "The same text"
    assert heading(TrajectoryReport.model_validate(trajectory_report(damage=0.9))) == "Decoding amplifies the damage"


def test_a_median_beyond_the_end_says_so():
    assert median_of(report("same").cells[0]) == ("> 128", "[> 128, > 128]")


def test_candidates_have_letters_where_there_are_several():
    one, four = trajectory(report("one")), trajectory(report("four"))
    assert one.parting.rows[0][0].text == "greedy"
    assert [row[0].text for row in four.parting.rows[:5]] == [
        "greedy · A",
        "greedy · B",
        "greedy · C",
        "greedy · D",
        "beam · A",
    ]
    assert len(four.candidates.rows) == 4


def test_a_shaping_is_named_by_its_own_parameter():
    named = [shaping_name(one) for one in report("one").distances]
    assert named == ["temperature 0.7", "top-p 0.95", "top-k 40", "min-p 0.1", "η 0.0003", "typical 0.95"]


def test_texts_of_models_are_escaped_and_shown_safely():
    page = render(VARIANTS["one"])
    assert "<b>until</b>" not in page
    assert "&lt;b&gt;until&lt;/b&gt;" in page
    assert "\u202e" not in page


def test_without_stored_text_no_text_is_shown():
    assert report("no-text").samples == ()
    assert "The river had been high" not in render(VARIANTS["no-text"])


def test_the_command_repeats_the_job():
    request = {
        "candidate": {"model": "m", "recipe": [{"type": "quantize.rtn", "bits": 4}]},
        "reference": {"model": "m"},
        "candidates": [{"model": "other", "recipe": []}],
        "decoders": [{"name": "top_p", "p": 0.9, "temperature": 1.0}, {"name": "greedy"}],
        "prompts": 8,
        "tokens": 64,
        "chat": True,
        "seed": 3,
    }
    command = trajectory_command(request, "shipped")
    assert command is not None
    words = command.replace("\\\n", " ").split()
    assert words[:2] == ["hemostat", "trajectory"]
    assert words[words.index("--decoder") : words.index("--decoder") + 4] == [
        "--decoder",
        "top_p:p=0.9",
        "--decoder",
        "greedy",
    ]
    assert words[words.index("--also") + 1] == "other"
    assert "--chat" in words
    assert words[words.index("--tokens") + 1] == "64"
    assert trajectory_command(request | {"shapings": []}, "shipped") is None
    assert trajectory_command(request, None) is None
