import io
import re
import shlex
from urllib.parse import parse_qs, urlsplit

import pytest
from rich.console import Console
from typer.testing import CliRunner

from app.cli import jobs
from app.cli.client import TERMINAL
from app.cli.job_table import print_jobs
from app.cli.jobs import _ENDED
from app.cli.main import app
from tests.support.commands import run


def job(number, kind):
    return {
        "id": f"diag_{number}",
        "kind": kind,
        "status": "succeeded",
        "severity": None,
        "candidate": {"model": "tiny", "recipe": []},
        "text": "shipped",
        "created_at": 0.0,
    }


def test_the_list_tells_kinds_apart(recorder):
    recorder.answer = {"data": [job(1, "compare"), job(2, "calibrate")], "has_more": False, "last_id": "diag_2"}
    done = CliRunner().invoke(app, ["jobs", "list", "--kind", "calibrate", "--url", recorder.url])
    assert recorder.asked[0][1].startswith("/v1/diagnosis/jobs?kind=calibrate")
    lines = [line.split() for line in done.output.splitlines()]
    assert lines[0][:3] == ["id", "kind", "status"]
    assert [line[1] for line in lines[1:3]] == ["compare", "calibrate"]


@pytest.mark.parametrize("in_environment", [False, True])
def test_the_next_page_is_one_of_the_same_list(recorder, in_environment, monkeypatch):
    monkeypatch.delenv("HEMOSTAT_URL", raising=False)
    if in_environment:
        monkeypatch.setenv("HEMOSTAT_URL", recorder.url)
    where = [] if in_environment else ["--url", recorder.url]
    recorder.answer = {"data": [job(1, "compare")], "has_more": True, "last_id": "diag_1"}
    given = ["--kind", "compare", "--metadata", "commit=4f2c", "--metadata", "note=two words", "--limit", "5"]
    done = CliRunner().invoke(app, ["jobs", "list", *given, *where])
    asked = parse_qs(urlsplit(recorder.asked[0][1]).query)
    assert asked == {"kind": ["compare"], "metadata": ["commit=4f2c", "note=two words"], "limit": ["5"]}
    told = done.output.splitlines()[-1].removeprefix("More: ")
    assert ("--url" in told) is not in_environment
    CliRunner().invoke(app, shlex.split(told)[1:])
    assert parse_qs(urlsplit(recorder.asked[1][1]).query) == asked | {"after": ["diag_1"]}


def test_the_job_that_is_shown_is_the_one_that_was_named(recorder):
    CliRunner().invoke(app, ["jobs", "show", "diag_1#2", "--url", recorder.url])
    assert recorder.asked == [("GET", "/v1/diagnosis/jobs/diag_1%232")]


SHOWN = {"progress": {"phase": "queued", "done": 0, "total": 0}, "reference": {"model": "tiny"}, "attempt": 1}
SHOWN |= {"artifacts": [], "error": None}


def shown(recorder, command, **fields):
    recorder.answer = job(1, "compare") | SHOWN | fields
    return run(f"jobs {command} diag_1 --url {recorder.url}", env={"COLUMNS": "300"}).output


def rows(output):
    return dict(re.split(r" {2,}", line.strip(), maxsplit=1) for line in output.splitlines())


def test_a_job_that_had_ended_is_said_not_to_be_cancelled(recorder):
    assert set(_ENDED) == TERMINAL
    for status in TERMINAL:
        assert "nothing was cancelled" in shown(recorder, "cancel", status=status)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"status": "succeeded", "started_at": 60.0, "finished_at": 175.0},
            {"started": "1970-01-01 00:01:00 UTC", "ended": "1970-01-01 00:02:55 UTC", "took in all": "1 min 55 s"},
        ),
        (
            {"status": "running", "started_at": 60.0},
            {"started": "1970-01-01 00:01:00 UTC", "took in all": "4 min 00 s so far"},
        ),
    ],
)
def test_a_job_that_is_shown_tells_its_times_as_its_page_does(recorder, monkeypatch, fields, said):
    monkeypatch.setattr(jobs.time, "time", lambda: 300.0)
    told = rows(shown(recorder, "show", **fields))
    names = {"created", "started", "ended", "took in all"}
    assert {name: told[name] for name in names & set(told)} == {"created": "1970-01-01 00:00:00 UTC"} | said


@pytest.mark.parametrize("width", [80, 240])
def test_the_list_tells_outcome_text_and_window_and_folds_nothing(width):
    listed = job(1, "surface") | {"id": f"diag_{'0' * 26}", "severity": "none", "text": "shipped:60", "window": 512}
    told = io.StringIO()
    print_jobs([listed, job(2, "trajectory")], Console(file=told, width=width))
    lines = [line.rstrip() for line in told.getvalue().splitlines()]
    assert len(lines) == (6 if width == 80 else 3)
    assert max(map(len, lines)) <= width
    surface = " ".join(lines[2:4] if width == 80 else lines[1:2])
    for said in (listed["id"], "surface", "succeeded", "no damage that matters at the chosen setting", "shipped:60"):
        assert str(said) in surface
    assert "window 512" in surface
