"""What an answer is: where it ends, and what is counted of it."""

from pathlib import Path

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import inspect
from tests.support.tiny import make_checkpoint
from workers.calibration.verified.models import kept_tokens
from workers.calibration.verified.truncation import Sampling
from workers.calibration.verified.verifier import Stream


def stream(most: int = 10) -> Stream:
    return Stream([1], Sampling(), most, frozenset({0}))


def test_a_stop_token_ends_it_and_counts_as_drawn() -> None:
    one = stream()
    assert one.take([5, 6, 0, 7]) == [5, 6]
    assert (one.finish, one.output, one.drawn) == ("stop", [5, 6], 3)


def test_the_last_token_may_be_the_stop_and_nothing_goes_beyond_the_length() -> None:
    one, other = stream(2), stream(2)
    assert one.take([5, 0]) == [5]
    assert (one.finish, one.drawn) == ("stop", 2)
    assert other.take([5, 6, 0]) == [5, 6]
    assert (other.finish, other.drawn) == ("length", 2)


def test_a_stop_string_takes_tokens_back() -> None:
    one = stream()
    one.take([5, 6, 7, 0])
    one.cut(2)
    assert (one.finish, one.output, one.drawn) == ("stop", [5], 1)
    other = stream(3)
    other.take([5, 6, 7])
    other.cut(0)
    assert (other.finish, other.drawn) == ("stop", 3)


def test_nothing_is_known_of_a_draft_that_was_not_made() -> None:
    assert stream().acceptance_rate is None
    assert stream().tokens_per_pass is None


def test_both_models_keep_what_their_share_holds_and_not_less_than_one_answer(tmp_path: Path) -> None:
    info = inspect(make_checkpoint(tmp_path, "llama"))
    each = 2 * (2 * 3 * 1 * 32 * 2)  # models; keys and values, layers, heads, head size, bytes
    fixed = 2 * (2 * info.parameters) + 256 * 1024**2 + 8 * 128 * each
    assert kept_tokens((info, info), fixed + 10**9, "bfloat16", 200, 32, "cuda") == 32 * 256
    for tokens in (1000, 1023, 1024):
        budget = fixed + tokens * each
        kept = kept_tokens((info, info), budget, "bfloat16", 200, 32, "cuda")
        assert kept == tokens // 128 * 128
        # vLLM pads them to whole blocks, and keeps eight for itself.
        assert fixed + -(-kept // 128) * 128 * each <= budget
    with pytest.raises(HemostatError) as caught:
        kept_tokens((info, info), fixed + 255 * each, "bfloat16", 200, 32, "cuda")
    assert caught.value.code is ErrorCode.ENGINE_OUT_OF_MEMORY
    assert "HEMOSTAT_SHARE_VERIFY" in caught.value.hint
