"""The command of each kind: its models by position or by option, and what it sends."""

import json
import shlex
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import submitting
from app.cli.main import app
from app.contracts.errors import HemostatError
from app.kinds.registry import KINDS


@pytest.fixture
def sent(monkeypatch, tmp_path):
    """What commands would send; the home is empty."""
    monkeypatch.setenv("HEMOSTAT_HOME", str(tmp_path))
    monkeypatch.delenv("HEMOSTAT_MODELS", raising=False)
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(submitting, "measure", lambda request, *_, **__: found.append(request))
    return found


def run(line):
    done = CliRunner().invoke(app, shlex.split(line))
    assert done.exception is None or isinstance(done.exception, HemostatError), done.output
    return done.exception


@pytest.mark.parametrize("line", ["a b", "-r a -c b", "a -c b", "--reference a --candidate b"])
def test_models_are_named_by_position_or_by_option(sent, line):
    recipes = {
        "sweep": "--recipe quantize.rtn --knob bits=2,4",
        "surface": "--recipe quantize.rtn --knob bits=2,4 --knob group_size=32,64",
    }
    for kind in KINDS.values():
        assert run(f"{kind.name} {line} {recipes.get(kind.name, '--recipe quantize.rtn:bits=4')}") is None
        assert sent[-1]["kind"] == kind.name
        assert (sent[-1]["reference"]["model"], sent[-1]["candidate"]["model"]) == ("a", "b")


def test_without_a_candidate_the_recipe_modifies_the_reference(sent):
    assert run("compare a --recipe quantize.rtn:bits=4") is None
    assert sent[0]["candidate"] == {"model": "a", "recipe": [{"type": "quantize.rtn", "bits": 4}]}


def test_what_is_not_given_is_left_to_the_contract(sent):
    assert run("compare a b") is None
    assert set(sent[0]) == {"kind", "reference", "candidate"}


@pytest.mark.parametrize("candidates", ["5", "[{}]", '[{"model": 5}]'])
def test_candidates_of_another_form_are_left_to_the_contract(sent, candidates):
    assert run(f"trajectory a b --set 'candidates={candidates}'") is None
    assert sent[0]["candidates"] == json.loads(candidates)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("compare", "REFERENCE is missing"),
        ("compare -c b", "REFERENCE is missing"),
        ("compare -r a b", "the reference is given twice: b and --reference a"),
        ("compare a b -c c", "the candidate is given twice: b and --candidate c"),
        ("compare a b --window 5 --set window=6", "window is given twice"),
    ],
)
def test_models_that_are_missing_or_given_twice_are_refused(sent, line, part):
    refused = run(line)
    assert refused is not None
    assert part in refused.detail
    assert sent == []
