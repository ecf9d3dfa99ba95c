import json

import pytest
from typer.testing import CliRunner

from app.cli.main import app
from app.deployments.examples import STARTING
from app.supervisor import status_of


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("good", "good"),
        ("good#1", "good%231"),  # a fragment is not sent: `good` would be deleted
        ("good?x", "good%3Fx"),
        ("../diagnosis/jobs/a", "..%2Fdiagnosis%2Fjobs%2Fa"),
    ],
)
def test_what_is_deleted_is_what_was_named(recorder, name, path):
    done = CliRunner().invoke(app, ["deploy", "delete", name, "--url", recorder.url])
    assert done.exit_code == 0, done.output
    assert recorder.asked == [("DELETE", f"/v1/deployments/{path}")]


def test_a_promotion_names_its_deployment(recorder):
    CliRunner().invoke(app, ["deploy", "promote", "good#1", "identity", "--url", recorder.url])
    assert recorder.asked == [("POST", "/v1/deployments/good%231/promote")]


def test_a_service_of_this_machine_is_asked_without_a_proxy(recorder, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    done = CliRunner().invoke(app, ["deploy", "delete", "good", "--url", recorder.url])
    assert done.exit_code == 0, done.output
    assert status_of(f"{recorder.url}/livez") == 204


def test_following_ends_where_nothing_will_follow(recorder):
    done = CliRunner().invoke(app, ["deploy", "events", "dep_1", "--follow", "--after", "5", "--url", recorder.url])
    assert (done.exit_code, done.output) == (0, "")
    assert recorder.asked == [("GET", "/v1/deployments/dep_1/events")]


WAITS = STARTING | {"reason": "0 of 1 replica is ready: no agent runs it yet; `hemostat serve` does"}
CREATE = ["deploy", "create", "a", "--model", "smollm2-135m", "--url"]


def test_a_new_deployment_is_shown_once_the_agent_has_seen_it(recorder):
    recorder.answers, recorder.answer = [WAITS, WAITS], STARTING
    done = CliRunner().invoke(app, [*CREATE, recorder.url])
    assert done.exit_code == 0, done.output
    assert "loading the weights" in done.output
    assert "no agent" not in done.output
    assert [method for method, _ in recorder.asked] == ["POST", "GET", "GET"]


def test_where_no_agent_runs_that_is_said(recorder, monkeypatch):
    monkeypatch.setattr("app.cli.deploy.AGENT_S", 0.3)
    recorder.answer = WAITS
    done = CliRunner().invoke(app, [*CREATE, recorder.url])
    assert done.exit_code == 0, done.output
    assert "no agent" in done.output


def test_sampling_is_sent_as_numbers_and_shown(recorder):
    recorder.answer = STARTING
    options = ["--sampling", "temperature=0.7", "--sampling", "top_k=40", "--sampling", "presence_penalty=-1"]
    done = CliRunner().invoke(app, [*CREATE, recorder.url, *options])
    assert json.loads(recorder.bodies[0])["sampling"] == {"temperature": 0.7, "top_k": 40, "presence_penalty": -1}
    assert "temperature 0.7, top_p 0.9" in done.output
    change = ["deploy", "set", "a", "--url", recorder.url]
    CliRunner().invoke(app, [*change, "--sampling", "top_p=0.5"])
    CliRunner().invoke(app, [*change, "--sampling", "none"])
    CliRunner().invoke(app, [*change, "--alpha", "0.1"])
    CliRunner().invoke(app, [*change, "--sampling", "top_k=--5"])
    assert [json.loads(sent) for sent in recorder.bodies[1:]] == [
        {"sampling": {"top_p": 0.5}},
        {"sampling": {}},
        {"alpha": 0.1},
        {"sampling": {"top_k": "--5"}},  # the service says what is wrong with it
    ]
