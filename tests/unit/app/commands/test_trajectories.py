"""Decoders and candidates as they are written on a command line."""

import pytest

from app.commands.trajectories import parse_candidate, parse_decoder, parse_shaping
from app.contracts.errors import ErrorCode, HemostatError


def test_a_decoder_is_a_name_and_its_parameters():
    assert parse_decoder("greedy") == {"name": "greedy"}
    assert parse_decoder("contrastive:k=4,alpha=0.5") == {"name": "contrastive", "k": 4, "alpha": 0.5}


@pytest.mark.parametrize("written", ["gredy", "top_p:0.9", "top_p:p=high"])
def test_what_is_no_decoder_is_refused(written):
    with pytest.raises(HemostatError) as caught:
        parse_decoder(written)
    assert caught.value.code == ErrorCode.INVALID_REQUEST
    assert repr(written) in caught.value.detail


def test_a_candidate_is_an_alias_with_or_without_a_recipe():
    assert parse_candidate("m") == {"model": "m"}
    assert parse_candidate("m=quantize.rtn:bits=3,group_size=32") == {
        "model": "m",
        "recipe": [{"type": "quantize.rtn", "bits": 3, "group_size": 32}],
    }
    two = parse_candidate('m=[{"type": "a"}, {"type": "b"}]')
    assert [step["type"] for step in two["recipe"]] == ["a", "b"]


def test_a_shaping_is_a_cut_and_its_parameters():
    assert parse_shaping("top_k:k=20") == {"name": "top_k", "k": 20}
    with pytest.raises(HemostatError) as caught:
        parse_shaping("greedy")
    assert "there is no shaping 'greedy': it is a decoder" in caught.value.detail
    assert caught.value.hint == "valid: eta, min_p, temperature, top_k, top_p, typical"
