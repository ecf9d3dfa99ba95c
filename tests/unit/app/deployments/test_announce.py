import io
from pathlib import Path

import pytest
from rich.console import Console

from app.contracts.deployment import Deployment, DeploymentEvent, DeploymentEventType, DeploymentRequest
from app.contracts.job import Job, Progress
from app.deployments import examples
from app.deployments.announce import WAY, Announcement, fit_progress, found_words, is_told
from app.deployments.words import NO_AGENT
from app.jobs.examples import QUEUED
from app.settings import Settings

STARTING = Deployment.model_validate(examples.STARTING)
READY = Deployment.model_validate(examples.READY)


def event(kind, reason=""):
    return DeploymentEvent(type=kind, at=0.0, reason=reason)


def test_what_was_there_is_not_said_to_serve_before_its_processes_do():
    left = READY.model_copy(update={"state": "degraded", "running": ()})
    assert found_words(left) == f"exists and starts; it will serve {READY.active_version}"
    assert found_words(READY) == f"exists, ready: it serves {READY.active_version}"
    assert found_words(STARTING.model_copy(update={"fit_reason": "nothing helps"})).endswith("identity (nothing helps)")


@pytest.mark.parametrize("shadow", [None, examples.READY["shadow"] | {"divergence": None}])
def test_no_traffic_is_not_news_where_there_was_none(shadow):
    stale = event(DeploymentEventType.STALE, "no request was scored for too long")
    silent = Deployment.model_validate(examples.READY | {"shadow": shadow})
    assert not is_told(stale, silent)
    assert not is_told(stale, None)
    assert is_told(stale, READY), "something was scored, and is no longer"


def test_the_agent_that_this_command_starts_is_not_missed():
    assert not is_told(event(DeploymentEventType.STATE, f"0 of 1 replica is ready: {NO_AGENT}; …"), READY)
    assert is_told(event(DeploymentEventType.STATE, "0 of 1 replica is ready: loading the weights"), READY)
    assert not is_told(event(DeploymentEventType.REPLICA), READY)


def test_the_store_says_what_is_looked_for():
    script = Path(examples.__file__).parent / "lua" / "prelude.lua"
    assert NO_AGENT in script.read_text(encoding="utf-8")


def test_a_phase_of_the_fit_is_told_as_it_begins_and_with_every_ten_points(tmp_path):
    output = io.StringIO()
    console = Console(file=output, force_terminal=False, width=200)
    request = DeploymentRequest.model_validate(examples.REQUEST)
    announcement = Announcement(Settings(home=tmp_path), request, console, {"fit": "fitting the calibrators"})
    for phase, done, total in [
        *[("fit", done, 100) for done in (0, 3, 9, 11, 15, 20, 21, 60)],
        *[("test", done, 0) for done in (0, 1)],
        *[("fit", done, 100) for done in (0, 10)],
    ]:
        announcement._progress(Progress(phase=phase, done=done, total=total))
    head = f"{request.name}: fitting its calibration: "
    assert [line.removeprefix(head) for line in output.getvalue().splitlines()] == [
        "fitting the calibrators",
        "fitting the calibrators 11 %",
        "fitting the calibrators 21 %",
        "fitting the calibrators 60 %",
        "test",
        "fitting the calibrators",
        "fitting the calibrators 10 %",
    ]


@pytest.mark.parametrize(
    ("status", "attempt", "told"),
    [
        ("queued", 0, ("fit", 3)),
        ("running", 2, ("fit", 3)),
        ("queued", 2, (WAY, 0)),
        ("succeeded", 2, None),
        ("cancelling", 1, None),
    ],
)
def test_a_fit_that_makes_way_is_not_told_as_one_that_stands_still(status, attempt, told):
    changed = {"status": status, "attempt": attempt, "progress": {"phase": "fit", "done": 3, "total": 100}}
    progress = fit_progress(Job.model_validate(QUEUED | changed))
    assert (None if progress is None else (progress.phase, progress.done)) == told
