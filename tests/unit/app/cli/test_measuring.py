"""A command never compares a model with itself by accident."""

import shlex

import pytest
from typer.testing import CliRunner

from app.cli.main import app
from app.up import free_port

KINDS = ("compare", "attribute", "mitigate", "calibrate", "tasks", "trajectory")


@pytest.fixture(autouse=True)
def no_service(monkeypatch, tmp_path):
    monkeypatch.setenv("HEMOSTAT_HOME", str(tmp_path))
    monkeypatch.setenv("HEMOSTAT_PORT", str(free_port("127.0.0.1")))
    monkeypatch.delenv("HEMOSTAT_URL", raising=False)


def refusal(command):
    """What the command says on its way out. Nothing runs: the request is refused before a service is started."""
    done = CliRunner().invoke(app, shlex.split(command))
    assert done.exception is not None
    return str(done.exception)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", ["-r a", "-r a -c a", "-r a --also a"])
def test_the_reference_unchanged_is_no_candidate(kind, options):
    if "--also" in options and kind != "trajectory":
        pytest.skip("other kinds have one candidate")
    assert "reference unchanged" in refusal(f"{kind} {options}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recipe", ["", " --recipe quantize.rtn:bits=4"])
def test_an_empty_candidate_is_refused_whatever_the_recipe(kind, recipe):
    assert "model" in refusal(f"{kind} -r a -c ''{recipe}")
    assert "reference unchanged" not in refusal(f"{kind} -r a -c ''{recipe}")


@pytest.mark.parametrize("kind", ("sweep", "surface"))
def test_an_empty_candidate_is_refused_by_kinds_that_turn_knobs(kind):
    knobs = {"sweep": "bits=2,4", "surface": "bits=2,4 --knob group_size=32,64"}[kind]
    assert "model" in refusal(f"{kind} -r a -c '' --recipe quantize.rtn --knob {knobs}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", ["-r a -c b", "-r a --recipe quantize.rtn:bits=4", "-r a --self-check"])
def test_what_is_changed_or_asked_for_is_taken(kind, options):
    assert "models.toml" in refusal(f"{kind} {options}")  # this home names no model: the next thing that is looked at
