"""The page at the root: what leads where, and what others named is shown as text."""

import shlex

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from app.cli.main import app
from app.contracts.job import Job, Progress
from app.web.home import Place, render_home
from tests.support.html import tree


def job(**fields):
    told = {
        "id": "diag_1",
        "kind": "compare",
        "status": "succeeded",
        "severity": "mild",
        "reference": {"model": "m"},
        "candidate": {"model": "m", "recipe": [{"type": "quantize.rtn", "bits": 4}]},
        "text": "shipped:60",
        "window": 512,
        "created_at": 0.0,
        "report_url": "/jobs/diag_1/report",
    }
    return Job.model_validate(told | fields)


@pytest.mark.parametrize(
    ("fields", "link", "state"),
    [
        ({}, "/jobs/diag_1/report", "mild"),
        ({"severity": "none"}, "/jobs/diag_1/report", "no damage that matters"),
        ({"status": "running", "severity": None}, "/jobs/diag_1", "running"),
    ],
)
def test_a_job_leads_to_its_report_once_it_has_one(fields, link, state):
    row = tree(render_home([job(**fields)], [], [])).one(id_="jobs").one("tbody")
    assert row.one("a").attributes["href"] == link
    cells = [cell.text for cell in row.all("td")]
    assert cells == ["m · 4-bit RTN, group 64, asymmetric", "shipped:60, window 512", state, "1970-01-01 00:00:00 UTC"]


@pytest.mark.parametrize(
    ("status", "progress", "state"),
    [
        ("running", Progress(phase="points", done=800, total=1300), "running: measuring the settings 61 %"),
        ("running", Progress(phase="\u202e"), "running: ⟨U+202E⟩"),
        ("running", Progress(), "running"),
        ("queued", Progress(phase="points", done=800, total=1300), "queued"),
    ],
)
def test_a_running_job_says_its_phase_and_share(status, progress, state):
    page = render_home([job(status=status, severity=None, progress=progress)], [], [])
    row = tree(page).one(id_="jobs").one("tbody")
    assert [cell.text for cell in row.all("td")][2] == state


def test_a_sweep_is_told_by_its_knob():
    knobs = [{"step": 0, "field": "bits", "values": [8, 6, 4]}]
    page = tree(render_home([job(kind="sweep", knobs=knobs)], [], []))
    assert "m · quantize.rtn with bits from 8 to 4 (3 values)" in page.one(id_="jobs").text


def test_what_others_wrote_is_text():
    step = {"type": "adapter.lora", "adapter": "\u202e<b>x"}
    page = render_home([job(candidate={"model": "m", "recipe": [step]}, kind="<script>")], [], [Place("/a?b&c", "<i>")])
    assert "<script>" not in page
    assert "\u202e" not in page
    assert list(tree(page).one(id_="places").all("i")) == []


def takes_its_options(words):
    """The command line reads these words as one of its commands with all that this needs, or raises. Runs nothing."""
    command = get_command(app)
    while isinstance(command, TyperGroup):
        name, *words = words
        command = command.commands[name]
    command.make_context(command.name, words)


def test_an_empty_service_says_how_to_begin_and_one_without_redis_that_it_cannot_tell():
    empty = tree(render_home([], [], []))
    commands = [shlex.split(pre.text) for pre in empty.all("pre")]
    assert [words[:2] for words in commands] == [["hemostat", "compare"], ["hemostat", "deploy"]]
    for _, *words in commands:
        assert "--help" not in words
        takes_its_options(words)
    away = tree(render_home([], [], [], missing="It is away."))
    assert away.one(class_="alert").text == "It is away."
    assert list(away.all("pre")) == []
