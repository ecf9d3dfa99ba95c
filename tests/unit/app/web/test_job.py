"""The page of a job: how far it is, what came of it, and when it stops loading itself again."""

import pytest

from app.contracts.errors import ErrorCode
from app.contracts.job import Progress, Queue, Turn, job_error
from app.web.job import RELOAD_S, render_job
from tests.support.html import tree
from tests.unit.app.web.test_home import job

RUNNING = job(status="running", severity=None, progress=Progress(phase="candidate", done=34, total=100))


def reloads(page):
    return [
        meta.attributes["content"] for meta in tree(page).all("meta") if meta.attributes.get("http-equiv") == "refresh"
    ]


def shown(page):
    return tree(page).one(id_="state")


def test_a_running_job_shows_its_phase_how_far_it_is_and_the_last_message():
    page = render_job(RUNNING, "window 34 of 100")
    assert tree(page).one("h1").text == "compare: running"
    assert "scoring the candidate: 34 of 100 windows, 34 % of this phase" in shown(page).text
    assert "Last message: window 34 of 100" in shown(page).text
    bar = shown(page).one("progress").attributes
    assert (bar["value"], bar["max"]) == ("34", "100")
    assert reloads(page) == [str(RELOAD_S)]


def test_a_bar_of_a_phase_whose_length_is_not_known_has_no_place():
    page = render_job(job(status="queued", severity=None), None)
    assert "waiting for a worker" in shown(page).text
    assert "Last message" not in page
    assert not {"value", "max"} & set(shown(page).one("progress").attributes)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"status": "running", "started_at": 100.0}, "3 min 20 s so far"),
        ({"status": "succeeded", "started_at": 100.0, "finished_at": 215.0}, "1 min 55 s"),
        ({"status": "queued"}, None),
        ({"status": "cancelled", "finished_at": 215.0}, None),
    ],
)
def test_a_job_says_how_long_it_took_in_all(fields, told):
    facts = shown(render_job(job(**fields), None, now=300.0))
    names = [name.text for name in facts.all("dt")]
    values = [value.text for value in facts.all("dd")]
    assert dict(zip(names, values, strict=True)).get("took in all") == told


def test_a_queued_job_says_what_it_waits_for():
    page = render_job(
        job(status="queued", severity=None),
        None,
        Queue(status="queued", before=7, first=Turn(id="diag_1", kind="calibrate")).description,
    )
    assert "waiting for a worker: 7 jobs before it, first calibrate diag_1" in shown(page).text


def test_a_job_that_was_given_back_waits_whatever_it_had_done():
    page = render_job(job(status="queued", severity=None, progress=RUNNING.progress), None)
    assert "waiting for a worker" in shown(page).text
    assert "scoring" not in shown(page).text


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
def test_an_ended_job_does_not_load_itself_again(status):
    page = render_job(job(status=status), None)
    assert reloads(page) == []
    assert list(shown(page).all("progress")) == []
    assert [a.attributes["href"] for a in shown(page).all("a")] == (
        ["/jobs/diag_1/report"] if status == "succeeded" else []
    )


GENERATING = Progress(phase="generate", done=2472, total=53248)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"progress": GENERATING, "attempt": 1},
            "It got as far as generating texts: 2,472 of 53,248 tokens, 4 % of this phase.",
        ),
        ({"attempt": 1}, "A worker had taken it; it had not got to a phase yet."),
        ({}, "No worker had taken it."),
        ({"progress": Progress(phase="\u202e", done=1, total=1), "attempt": 1}, "It got as far as ⟨U+202E⟩."),
    ],
)
@pytest.mark.parametrize("status", ["cancelled", "failed"])
def test_a_job_that_ended_without_a_result_says_how_far_it_got(status, fields, told):
    page = render_job(job(kind="trajectory", status=status, severity=None, **fields), None)
    assert told in [paragraph.text for paragraph in shown(page).all("p")]


def test_a_failed_job_says_why_and_what_to_do():
    error = job_error(ErrorCode.ENGINE_OUT_OF_MEMORY, "It wanted 9 GiB.", "Use less.")
    alert = shown(render_job(job(status="failed", severity=None, error=error), None)).one(class_="alert").text
    assert error.title in alert
    assert "It wanted 9 GiB. What to do: Use less." in alert


def test_what_others_wrote_is_text():
    page = render_job(job(status="running", kind="<script>", text="file:\u202ea"), "<b>\u202e")
    assert "<script>" not in page
    assert "\u202e" not in page
    assert "Last message: <bdi>&lt;b&gt;⟨U+202E⟩</bdi>" in page
