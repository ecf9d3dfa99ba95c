import pytest

from app.gateway.body import dump, model_name, parse, require
from app.gateway.errors import ApiError


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"{", "invalid_json"),
        (b'{"a": NaN}', "invalid_json"),
        (b'{"a": 1e400}', "invalid_json"),
        (b'{"a": "\xff"}', "invalid_json"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json"),
        (b'{"a": ' + b"[" * 65 + b"]" * 65 + b"}", "invalid_json"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "invalid_json"),
        (b"[]", "invalid_request"),
    ],
)
def test_what_is_no_json_object_is_400(raw, code):
    with pytest.raises(ApiError) as caught:
        parse(raw)
    assert (caught.value.status, caught.value.code) == (400, code)


def test_the_rest_goes_on_as_it_came():
    raw = '{"model":"m","text":"é€\\ud800\\u0000","big":12345678901234567890,"small":1e-7,"nested":[[{"a":null}]]}'
    assert (
        dump(parse(raw.encode()))
        == raw.replace("é", "\\u00e9").replace("€", "\\u20ac").replace("1e-7", "1e-07").encode()
    )


@pytest.mark.parametrize("body", [{}, {"model": ""}, {"model": 3}, {"model": None}, {"model": ["m"]}])
def test_a_request_names_a_model(body):
    with pytest.raises(ApiError) as caught:
        model_name(body)
    assert (caught.value.status, caught.value.param) == (400, "model")


@pytest.mark.parametrize("body", [{}, {"messages": None}])
def test_a_request_without_its_prompt_is_refused_by_name(body):
    with pytest.raises(ApiError, match="`messages` is required") as caught:
        require(body, "messages")
    assert (caught.value.status, caught.value.param) == (400, "messages")
