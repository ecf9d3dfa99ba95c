"""What a deployment says of sampling holds where a request says nothing."""

import pytest
from pydantic import ValidationError

from app.contracts.deployment import SamplingDefaults
from app.gateway.bounds import check
from app.gateway.errors import ApiError
from app.gateway.sampling import check as check_sampling
from app.gateway.sampling import completed
from tests.unit.app.gateway.test_replicas import deployment

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
def test_what_is_given_stays_and_what_is_left_out_is_the_deployments(body, expected):
    before = dict(body)
    assert completed(body, WARM) == expected
    assert body == before


def test_verified_decoding_takes_no_penalties():
    assert completed({}, WARM, verified=True) == {"temperature": 0.7, "top_p": 0.9, "top_k": 40}


@pytest.mark.parametrize("default", [0.0, 9e-6])
def test_several_answers_of_a_greedy_deployment_are_refused_with_the_cause(default):
    greedy = deployment(sampling=SamplingDefaults(temperature=default))
    with pytest.raises(ApiError) as caught:
        check_sampling({"n": 3, "temperature": None}, greedy)
    assert (caught.value.status, caught.value.param) == (400, "n")
    assert f"temperature {default:g}" in caught.value.detail
    assert "temperature" in caught.value.hint


def test_every_default_that_may_be_set_is_one_that_a_request_may_give():
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
def test_what_no_request_could_ask_for_is_refused(wrong):
    with pytest.raises(ValidationError):
        SamplingDefaults.model_validate(wrong)
