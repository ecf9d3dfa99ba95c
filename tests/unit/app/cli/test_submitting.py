"""The command of each kind: its models by position or by option, and what it sends."""

import json

import pytest

from app.kinds.registry import KINDS
from tests.support.commands import refused, run


@pytest.fixture(autouse=True)
def empty_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HEMOSTAT_HOME", str(tmp_path))
    monkeypatch.setenv("HEMOSTAT_PORT", "1")  # nothing listens there
    for name in ("HEMOSTAT_MODELS", "HEMOSTAT_URL"):
        monkeypatch.delenv(name, raising=False)


def recipe_of(kind):
    knobs = {"sweep": "--knob bits=2,4", "surface": "--knob bits=2,4 --knob group_size=32,64"}.get(kind)
    return f"--recipe quantize.rtn {knobs}" if knobs else "--recipe quantize.rtn:bits=4"


@pytest.mark.parametrize("line", ["a b", "-r a -c b", "a -c b", "--reference a --candidate b"])
def test_models_are_named_by_position_or_by_option(sent, line):
    for kind in KINDS:
        request = sent(f"{kind} {line} {recipe_of(kind)}")
        assert request["kind"] == kind
        assert (request["reference"]["model"], request["candidate"]["model"]) == ("a", "b")


def test_what_is_not_given_is_left_to_the_contract(sent):
    changed = sent("compare a --recipe quantize.rtn:bits=4")
    assert changed["candidate"] == {"model": "a", "recipe": [{"type": "quantize.rtn", "bits": 4}]}
    assert set(sent("compare a b")) == {"kind", "reference", "candidate"}
    for candidates in ("5", "[{}]", '[{"model": 5}]'):
        assert sent("trajectory a b --set", f"candidates={candidates}")["candidates"] == json.loads(candidates)


def test_models_that_are_missing_or_given_twice_are_refused():
    for line, part in (
        ("compare", "REFERENCE is missing"),
        ("compare -c b", "REFERENCE is missing"),
        ("compare -r a b", "given twice: b and --reference a"),
        ("compare a b -c c", "given twice: b and --candidate c"),
        ("compare a b --window 5 --set window=6", "window is given twice"),
    ):
        assert part in refused(line).detail


def test_a_model_is_never_compared_with_itself_by_accident():
    for kind in sorted(KINDS):
        recipe = recipe_of(kind)
        assert "CANDIDATE is empty" in refused(f"{kind} -r a -c '' {recipe}").detail
        if kind in ("sweep", "surface"):
            continue
        assert "reference unchanged" in refused(f"{kind} -r a").detail
        assert "reference unchanged" in refused(f"{kind} -r a -c a").detail
        assert "CANDIDATE is empty" in refused(f"{kind} -r a -c ''").detail
        for options in ("-r a -c b", f"-r a {recipe}", "-r a --self-check"):
            # This home names no model: the next thing that is looked at.
            assert "models.toml" in str(run(f"{kind} {options}").exception)
    assert "reference unchanged" in refused("trajectory -r a --also a").detail
