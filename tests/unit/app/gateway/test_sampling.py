"""What a deployment says of sampling holds where a request says nothing."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.contracts.deployment import SamplingDefaults
from app.gateway.bounds import check
from app.gateway.sampling import completed

WARM = SamplingDefaults(temperature=0.7, top_p=0.9, top_k=40, presence_penalty=0.5)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "presence_penalty": 0.5}),
        ({"temperature": 0}, {"temperature": 0, "top_p": 0.9, "top_k": 40, "presence_penalty": 0.5}),
        ({"temperature": None}, {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "presence_penalty": 0.5}),
        (
            {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "presence_penalty": 0.0, "seed": 5},
            {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "presence_penalty": 0.0, "seed": 5},
        ),
        ({"use_beam_search": True, "n": 2}, {"use_beam_search": True, "n": 2}),
    ],
)
def test_what_is_given_stays_and_what_is_left_out_is_the_deployments(
    body: dict[str, Any], expected: dict[str, Any]
) -> None:
    before = dict(body)
    assert completed(body, WARM) == expected
    assert body == before


def test_without_defaults_nothing_is_added() -> None:
    assert completed({"prompt": "a"}, SamplingDefaults()) == {"prompt": "a"}


def test_verified_decoding_takes_no_penalties() -> None:
    assert completed({}, WARM, verified=True) == {"temperature": 0.7, "top_p": 0.9, "top_k": 40}


def test_every_default_that_may_be_set_is_one_that_a_request_may_give() -> None:
    """Else each request would be refused for what it did not say."""
    properties = SamplingDefaults.model_json_schema()["properties"]
    for name, told in properties.items():
        number = next(one for one in told["anyOf"] if one["type"] != "null")
        lowest = number.get("minimum", number.get("exclusiveMinimum"))
        for value in (lowest, number["maximum"]):
            check({name: value})


@pytest.mark.parametrize(
    "wrong", [{"temperature": 2.1}, {"temperature": -1}, {"top_p": 0}, {"top_k": 1.5}, {"heat": 1}, {"min_p": "high"}]
)
def test_what_no_request_could_ask_for_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SamplingDefaults.model_validate(wrong)
