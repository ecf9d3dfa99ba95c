"""Decoders as a client gives them: thirteen names, published defaults, and exact refusals."""

import json
from typing import Annotated

import pytest
from pydantic import Field

from app.contracts.base import Contract
from app.contracts.decoding import DECODER, DECODERS, AnyDecoder, AnyShaping, defaults
from app.contracts.errors import ErrorCode
from app.jobs.parsing import parse_body
from app.problems import RequestError


class _Body(Contract):
    decoders: Annotated[tuple[AnyDecoder, ...], Field(min_length=1)] = defaults()
    shapings: tuple[AnyShaping, ...] = ()


def _refused(body):
    with pytest.raises(RequestError) as raised:
        parse_body(json.dumps(body).encode(), _Body)
    return raised.value


def test_the_thirteen():
    assert len(set(DECODERS)) == 13
    assert [decoder.name for decoder in defaults()] == list(DECODERS)
    assert all(DECODER.validate_json(decoder.model_dump_json()) == decoder for decoder in defaults())


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("contrastive", {"k": 8, "alpha": 0.6}),
        ("fsd", {"k": 3, "alpha": 0.45, "n": 2}),
        ("fsd_d", {"k": 3, "alpha": 0.65, "n": 3, "beta": 0.9}),
        ("top_p", {"p": 0.95, "temperature": 1.0}),
        ("min_p", {"p": 0.1, "temperature": 1.0}),
        ("typical", {"mass": 0.95, "temperature": 1.0}),
        ("mirostat", {"tau": 3.0, "rate": 1.0, "m": 100, "temperature": 1.0}),
        ("diverse_beam", {"beams": 4, "groups": 4, "diversity": 0.5, "length_penalty": 1.0}),
    ],
)
def test_a_name_alone_has_what_its_authors_published(name, published):
    assert DECODER.validate_python({"name": name}).model_dump() == {"name": name, **published}


@pytest.mark.parametrize(
    ("decoder", "pointer"),
    [
        ({"name": "top_p", "p": 1.5}, "/decoders/1/p"),
        ({"name": "top_p", "p": 0}, "/decoders/1/p"),
        ({"name": "top_k", "k": 2.5}, "/decoders/1/k"),
        ({"name": "beam", "beams": 17}, "/decoders/1/beams"),
        ({"name": "diverse_beam", "beams": 4, "groups": 3}, "/decoders/1/groups"),
        ({"name": "contrastive", "k": 65}, "/decoders/1/k"),
        ({"name": "mirostat", "tau": 0}, "/decoders/1/tau"),
        ({"name": "nucleus"}, "/decoders/1/name"),
        ({"p": 0.9}, "/decoders/1/name"),
    ],
    ids=str,
)
def test_what_is_out_of_range_is_refused_where_it_stands(decoder, pointer):
    refused = _refused({"decoders": [{"name": "greedy"}, decoder]})

    assert [(error.code, error.pointer) for error in refused.errors] == [(ErrorCode.INVALID_REQUEST, pointer)]


@pytest.mark.parametrize(
    ("decoder", "field", "hint"),
    [
        ({"name": "top_p", "top_p": 0.9}, "top_p", "p"),
        ({"name": "temperature", "temperature": 1.0, "top_k": 5}, "top_k", "temperature"),
        ({"name": "temperature", "temprature": 1.0}, "temprature", "temperature"),
        ({"name": "greedy", "k": 5}, "k", "name"),
    ],
    ids=str,
)
def test_a_parameter_that_a_decoder_has_not_is_refused_by_its_name(decoder, field, hint):
    (error,) = _refused({"decoders": [decoder]}).errors

    assert (error.code, error.pointer) == (ErrorCode.UNKNOWN_FIELD, f"/decoders/0/{field}")
    assert hint in error.hint


def test_a_decoder_that_does_not_exist_is_told_by_those_that_do():
    (error,) = _refused({"decoders": [{"name": "top-p"}]}).errors

    assert error.detail == "There is no decoder 'top-p'."
    assert "top_p" in error.hint


def test_a_distribution_is_shaped_by_what_looks_at_one_token_alone():
    (error,) = _refused({"shapings": [{"name": "beam"}]}).errors

    assert (error.code, error.pointer) == (ErrorCode.INVALID_REQUEST, "/shapings/0/name")
    assert error.detail.startswith("There is no shaping 'beam': it is a decoder, and distances are taken only after")
    assert error.hint == "valid: eta, min_p, temperature, top_k, top_p, typical"


def test_a_shaping_that_is_no_decoder_either_is_told_by_the_nearest():
    (error,) = _refused({"shapings": [{"name": "typicl"}]}).errors

    assert error.detail == "There is no shaping 'typicl'."
    assert error.hint.startswith("did you mean 'typical'?")
