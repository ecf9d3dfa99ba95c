import io
import re
import shlex
from typing import get_args, get_type_hints
from urllib.parse import parse_qs, urlsplit

import pytest
from rich.console import Console
from typer.testing import CliRunner

from app.cli import jobs
from app.cli.client import TERMINAL
from app.cli.job_table import print_jobs
from app.cli.jobs import _ENDED, list_jobs
from app.cli.main import app
from app.contracts.job import JobStatus
from app.kinds.registry import KINDS


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


@pytest.mark.parametrize(("option", "names"), [("status", list(JobStatus)), ("kind", KINDS)])
def test_what_the_list_can_be_picked_by_is_told(option, names):
    hint = get_type_hints(list_jobs, include_extras=True)[option]
    told = get_args(hint)[1].help.removeprefix("One of ").removesuffix(".")
    assert sorted(told.split(", ")) == sorted(names)


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


def test_a_sweep_is_listed_by_its_knob_and_the_knobs_range(recorder):
    swept = job(1, "sweep") | {
        "candidate": {"model": "tiny", "recipe": [{"type": "prune.wanda", "sparsity": 0.1}]},
        "knobs": [{"step": 0, "field": "sparsity", "values": [0.1, 0.3, 0.8]}],
    }
    recorder.answer = {"data": [swept], "has_more": False, "last_id": "diag_1"}
    done = CliRunner().invoke(app, ["jobs", "list", "--url", recorder.url], env={"COLUMNS": "200"})
    assert "prune.wanda with sparsity from 0.1 to 0.8 (3 values)" in done.output


def test_the_job_that_is_shown_is_the_one_that_was_named(recorder):
    CliRunner().invoke(app, ["jobs", "show", "diag_1#2", "--url", recorder.url])
    assert recorder.asked == [("GET", "/v1/diagnosis/jobs/diag_1%232")]


@pytest.mark.parametrize(
    ("status", "said"), [("succeeded", "had succeeded"), ("failed", "had failed"), ("cancelled", "had been cancelled")]
)
def test_a_job_that_had_ended_is_said_not_to_be_cancelled(recorder, status, said):
    recorder.answer = job(1, "compare") | {"status": status, "reference": {"model": "tiny"}, "attempt": 1}
    recorder.answer |= {"progress": {"phase": "queued", "done": 0, "total": 0}, "artifacts": [], "error": None}
    done = CliRunner().invoke(app, ["jobs", "cancel", "diag_1", "--url", recorder.url], env={"COLUMNS": "200"})
    assert f"nothing was cancelled: the job {said} already" in done.output


def test_every_end_of_a_job_has_its_words():
    assert set(_ENDED) == TERMINAL


def test_a_job_that_is_shown_tells_its_phase_in_words(recorder):
    running = {
        "status": "running",
        "progress": {"phase": "modify: fisher", "done": 3, "total": 0},
        "reference": {"model": "tiny"},
        "attempt": 1,
        "artifacts": [],
        "error": None,
    }
    recorder.answer = job(1, "compare") | running
    done = CliRunner().invoke(app, ["jobs", "show", "diag_1", "--url", recorder.url], env={"COLUMNS": "200"})
    assert "modifying: Fisher information: 3 steps so far" in done.output


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
        ({"status": "queued"}, {}),
        ({"status": "cancelled", "finished_at": 175.0}, {"ended": "1970-01-01 00:02:55 UTC"}),
    ],
)
def test_a_job_that_is_shown_tells_its_times_as_its_page_does(recorder, monkeypatch, fields, said):
    shown = {"progress": {"phase": "queued", "done": 0, "total": 0}, "reference": {"model": "tiny"}}
    recorder.answer = job(1, "compare") | shown | {"attempt": 1, "artifacts": [], "error": None} | fields
    monkeypatch.setattr(jobs.time, "time", lambda: 300.0)
    done = CliRunner().invoke(app, ["jobs", "show", "diag_1", "--url", recorder.url], env={"COLUMNS": "200"})
    lines = dict(re.split(r" {2,}", line.strip(), maxsplit=1) for line in done.output.splitlines())
    names = {"created", "started", "ended", "took in all"}
    assert {name: lines[name] for name in names & set(lines)} == {"created": "1970-01-01 00:00:00 UTC"} | said


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


@pytest.mark.parametrize(
    ("fields", "rows"),
    [
        ({"status": "succeeded", "artifacts": ["recipe.json"]}, {"fetch them": "hemostat jobs fetch diag_1"}),
        ({"status": "cancelled"}, {"what is kept": "Submitted again, it starts over, but takes"}),
        ({"status": "failed"}, {}),
    ],
)
def test_a_job_that_is_shown_tells_how_to_fetch_its_files_and_what_the_same_job_finds_again(recorder, fields, rows):
    shown = {"progress": {"phase": "queued", "done": 0, "total": 0}, "reference": {"model": "tiny"}}
    recorder.answer = job(1, "compare") | shown | {"attempt": 1, "artifacts": [], "error": None} | fields
    done = CliRunner().invoke(app, ["jobs", "show", "diag_1", "--url", recorder.url], env={"COLUMNS": "300"})
    lines = dict(re.split(r" {2,}", line.strip(), maxsplit=1) for line in done.output.splitlines())
    found = {name: lines[name] for name in ("fetch them", "what is kept") if name in lines}
    assert found.keys() == rows.keys()
    assert all(found[name].startswith(told) for name, told in rows.items())
