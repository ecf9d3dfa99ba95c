"""Patterns of strangers against Python's own engine, where that ends."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.models.patterns import MOST_CHARACTERS, matches, may_explode

NAMES = ("model.layers.0.self_attn.q_proj", "model.layers.11.mlp.experts.3.down_proj", "lm_head", "qkv", "")
PIECES = st.sampled_from(
    [".*", r"model\.", r"layers\.\d+", "[0-9]+", "mlp", "(q|k|v)_proj", "self_attn", "x?", "$", "^", "[^l]", "(?:e.*)"]
)


@given(st.lists(PIECES, max_size=6).map("".join))
def test_a_pattern_matches_what_python_matches(pattern):
    for name in NAMES:
        assert matches(pattern, name) is (re.match(pattern, name) is not None)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pattern", ["(([a-z0-9._])+)+!", "(a|a)*b" * 60, "(.*)*" * 80 + "!", ".*.*.*.*.*.*.*.*!"])
def test_a_pattern_that_never_ends_elsewhere_is_answered(pattern):
    assert not matches(pattern, "model.layers.0.self_attn.q_proj" * 40)


@pytest.mark.parametrize(
    "pattern", ["(?!a)b", "(?<=a)b", r"(a)\1", "(", "a" * (MOST_CHARACTERS + 1), "((a{1,999}){1,999}){1,999}"]
)
def test_a_pattern_that_takes_backtracking_or_memory_is_refused(pattern):
    with pytest.raises(ValueError, match=r"\w"):
        matches(pattern, "a")


# As the tokenizers of these models have them.
TOKENIZERS = [
    # GPT-2
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    # Llama 3
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)",
    # o200k
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{M}]+(?i:'s|'t|'re|'ve)?|\p{N}{1,3}|\s+",
    # DeepSeek
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*",
    # BLOOM
    r" ?[^(\s|[.,!?…。，、।۔،])]+",
    r"\d",
    r"(?:a|b){1,3}(c+)?",
]


@pytest.mark.parametrize("pattern", TOKENIZERS)
def test_patterns_of_known_tokenizers_do_not_explode(pattern):
    assert not may_explode(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+!",
        "(?:a|ab)*c",
        r"(\w+\s?)*$",
        "((a?)b)+",
        "(?i:(x{2,})){10,}",
        "(a|a){30}",
        "(?=(a*)*)",
        "x((?:[+*]+)y)*",
    ],
)
def test_a_repeated_group_that_holds_a_repeat_or_a_choice_may_explode(pattern):
    assert may_explode(pattern)
