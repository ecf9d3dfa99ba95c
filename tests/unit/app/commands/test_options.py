"""Options are made from the fields of a request: of any kind, here of one that only this test has."""

import json
from typing import Annotated, Literal

import pytest
from pydantic import Field

from app.commands.options import options_of, request_of, with_fields, words_of
from app.contracts.base import Contract
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.option import Option
from app.contracts.request import JobRequest


class Limits(Contract):
    depth: Annotated[int, Field(ge=1)] | None = None
    heat: Annotated[float, Option("--warmth")] = 0.5


class ProbeRequest(JobRequest):
    """A kind of this test."""

    kind: Literal["probe"]
    rate: Annotated[float, Field(gt=0)] = Field(default=0.25, description="how often")
    names: Annotated[tuple[str, ...], Option("--name")] = ("a", "b")
    careful: bool = True
    loud: bool = False
    keep: bool | None = None
    mode: Literal["slow", "quick"] = "slow"
    export: Annotated[Literal["nothing", "all"], Option("--all", sets="all", help="Export all.")] = "nothing"
    limits: Limits = Limits()
    grid: tuple[tuple[int, int], ...] = ((0, 1),)  # has no notation
    unused: Annotated[int, Option(hidden=True)] = 3


BASE = {"kind": "probe", "reference": {"model": "a"}, "candidate": {"model": "b"}}
CHANGES = [
    {},
    {"rate": 0.1234567890123},
    {"names": ["x", "y y"]},
    {"careful": False},
    {"loud": True},
    {"keep": True},
    {"keep": False},
    {"mode": "quick"},
    {"export": "all"},
    {"limits": {"depth": 3}},
    {"limits": {"depth": 3, "heat": 1e-9}},
    {"grid": [[1, 2], [3, 4]]},
    {"window": 7, "seed": 2**62 + 1, "thresholds": {"mild": 0.001}, "timeout_s": 1.5},
    {"text": {"source": "self", "tokens": 300}, "metadata": {"a": "b=c"}},
    {"text": {"source": "hub", "dataset": "a/b", "revision": "r"}},
]


def body(change):
    return ProbeRequest.model_validate(BASE | change).model_dump(mode="json")


def parsed(words):
    """What typer would give the command: a plain reader of the words, by what each option says of itself."""
    known = {option.flag: option for option in options_of(ProbeRequest)}
    given: dict = {"set": []}
    rest = list(words)
    while rest:
        flag = rest.pop(0)
        if flag == "--set":
            given["set"].append(rest.pop(0))
            continue
        option = known.get(flag) or known[f"--{flag.removeprefix('--no-')}"]
        if option.switch or (option.type is bool and option.shape is None):
            given[option.name] = flag == option.flag
        elif option.repeated:
            given.setdefault(option.name, []).append(option.type(rest.pop(0)))
        else:
            given[option.name] = option.type(rest.pop(0))
    return given


@pytest.mark.parametrize("change", CHANGES, ids=json.dumps)
def test_the_words_of_a_request_are_read_back_as_the_request(change):
    words = [word for line in words_of(ProbeRequest, body(change)) for word in line]
    given = parsed(words)
    asked = with_fields(BASE | request_of(ProbeRequest, given), given["set"])
    assert body(asked) == body(change)


def test_a_request_of_defaults_needs_no_words_and_no_words_send_nothing():
    assert words_of(ProbeRequest, body({})) == []
    assert request_of(ProbeRequest, {option.name: None for option in options_of(ProbeRequest)}) == {}


def test_an_option_has_the_name_help_and_default_of_its_field():
    found = {option.flag: option for option in options_of(ProbeRequest)}
    assert found["--rate"].help == "How often. Default: 0.25."
    assert {"--name", "--careful", "--loud", "--keep", "--all", "--depth", "--warmth", "--window"} <= set(found)
    assert found["--warmth"].path == ("limits", "heat")
    assert "slow, quick" in found["--mode"].help
    assert not {"--grid", "--unused", "--kind", "--limits"} & set(found)


@pytest.mark.parametrize(("words", "part"), [(["rate"], "not FIELD=JSON"), (["rate=fast"], "not FIELD=JSON")])
def test_what_is_no_field_and_json_is_refused(words, part):
    with pytest.raises(HemostatError, match=part) as refused:
        with_fields({}, words)
    assert refused.value.code is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("body", [({"rate": 1}, ["rate=2"]), ({}, ["rate=1", "rate=2"])])
def test_a_field_is_given_once(body):
    with pytest.raises(HemostatError, match="rate is given twice"):
        with_fields(*body)
