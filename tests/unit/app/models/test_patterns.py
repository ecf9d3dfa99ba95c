"""Patterns of strangers against Python's own engine, where that ends."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.models.patterns import MOST_CHARACTERS, matches

NAMES = ("model.layers.0.self_attn.q_proj", "model.layers.11.mlp.experts.3.down_proj", "lm_head", "qkv", "")
PIECES = st.sampled_from(
    [".*", r"model\.", r"layers\.\d+", "[0-9]+", "mlp", "(q|k|v)_proj", "self_attn", "x?", "$", "^", "[^l]", "(?:e.*)"]
)


@given(st.lists(PIECES, max_size=6).map("".join))
def test_a_pattern_matches_what_python_matches(pattern: str) -> None:
    for name in NAMES:
        assert matches(pattern, name) is (re.match(pattern, name) is not None)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pattern", ["(([a-z0-9._])+)+!", "(a|a)*b" * 60, "(.*)*" * 80 + "!", ".*.*.*.*.*.*.*.*!"])
def test_a_pattern_that_never_ends_elsewhere_is_answered(pattern: str) -> None:
    assert not matches(pattern, "model.layers.0.self_attn.q_proj" * 40)


@pytest.mark.parametrize(
    "pattern", ["(?!a)b", "(?<=a)b", r"(a)\1", "(", "a" * (MOST_CHARACTERS + 1), "((a{1,999}){1,999}){1,999}"]
)
def test_a_pattern_that_takes_backtracking_or_memory_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        matches(pattern, "a")
