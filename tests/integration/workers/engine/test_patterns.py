"""The libraries that load a packed checkpoint match its patterns with our engine: private names, held by a contract."""

import re
from types import SimpleNamespace

import pytest

from workers.engine.launch import load_vllm

HOSTILE = "re:(([a-z0-9._])+)+!"
NAME = "model.layers.0.self_attn.q_proj.and.more.letters"


@pytest.fixture(scope="module", autouse=True)
def vllm() -> None:
    load_vllm()


@pytest.mark.timeout(600)
def test_vllm_answers_for_a_pattern_that_never_ends_elsewhere() -> None:
    from torch import nn
    from vllm.model_executor.layers.quantization.compressed_tensors.utils import (
        find_matched_target,
        should_ignore_layer,
    )

    assert not should_ignore_layer(NAME, [HOSTILE])
    assert should_ignore_layer(NAME, [HOSTILE, "re:.*q_proj"])
    assert find_matched_target(NAME, nn.Linear(1, 1), [HOSTILE, "re:.*layers.0.*"]) == "re:.*layers.0.*"
    assert find_matched_target("lm_head", nn.Linear(1, 1), [HOSTILE, "Linear"]) == "Linear"


@pytest.mark.timeout(600)
def test_compressed_tensors_does_too() -> None:
    from compressed_tensors.utils.match import match_name

    assert not match_name(NAME, HOSTILE)
    assert match_name(NAME, r"re:model\.layers\.\d+")


def test_no_other_engine_is_left_in_them() -> None:
    from compressed_tensors.utils import match
    from vllm.model_executor.layers.quantization.utils import config_utils

    for module in (match, config_utils):
        assert isinstance(module.re, SimpleNamespace)
        assert module.re.fullmatch("a+", "aa")
        assert module.re is not re
