"""Rotary frequencies that transformers computes from the new configuration, against the published formulas."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode
from app.models.checkpoint import inspect
from tests.support.checked import checked
from tests.support.copies import edit_json
from tests.support.pruning import operate, weights
from tests.support.refusals import refusal_of

DIM, BASE, POSITIONS = 32, 10000.0, 256
PLAIN = BASE ** (-torch.arange(0, DIM, 2, dtype=torch.float64) / DIM)


def rotary(folder):
    """(frequencies, scale of attention) that transformers turns by."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.model.rotary_emb.inv_freq.double(), float(model.model.rotary_emb.attention_scaling)


def test_linear_divides_every_frequency(tiny, store):
    with operate(tiny(), store, {"type": "context.linear", "factor": 4}) as modified:
        found, scale = rotary(modified.path)
        assert inspect(modified.path).max_position == 4 * POSITIONS
        assert (modified.manifest.tensors, modified.manifest.bits_per_weight) == ((), None)
        before, after = weights(tiny()), weights(modified.path)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    torch.testing.assert_close(found, PLAIN / 4, rtol=1e-5, atol=0)
    assert scale == 1


def test_ntk_keeps_the_highest_and_divides_the_lowest_frequency(tiny, store):
    with operate(tiny(), store, {"type": "context.ntk", "factor": 4}) as modified:
        found, _ = rotary(modified.path)
    assert float(found[0] / PLAIN[0]) == pytest.approx(1, rel=1e-6)
    assert float(found[-1] / PLAIN[-1]) == pytest.approx(1 / 4, rel=1e-5)
    base = BASE * 4 ** (DIM / (DIM - 2))
    torch.testing.assert_close(found, base ** (-torch.arange(0, DIM, 2).double() / DIM), rtol=1e-5, atol=0)


def test_yarn_is_the_papers_ramp(tiny, store):
    with operate(tiny(), store, {"type": "context.yarn", "factor": 4, "beta_fast": 8, "beta_slow": 2}) as modified:
        found, scale = rotary(modified.path)

    def turning(times):
        return DIM * math.log(POSITIONS / (times * 2 * math.pi)) / (2 * math.log(BASE))

    low, high = max(math.floor(turning(8)), 0), min(math.ceil(turning(2)), DIM - 1)
    ramp = ((torch.arange(DIM // 2).double() - low) / (high - low)).clamp(0, 1)
    torch.testing.assert_close(found, PLAIN / 4 * ramp + PLAIN * (1 - ramp), rtol=1e-5, atol=0)
    assert scale == pytest.approx(0.1 * math.log(4) + 1)


def test_an_older_configuration_is_read_too(copy, store):
    folder = copy()
    edit_json(folder / "config.json", rope_parameters=None, rope_theta=BASE)
    with operate(folder, store, {"type": "context.linear", "factor": 2}) as modified:
        found, _ = rotary(modified.path)
    torch.testing.assert_close(found, PLAIN / 2, rtol=1e-5, atol=0)


@pytest.mark.parametrize("way", ["linear", "yarn"])
def test_a_scaling_that_no_engine_would_load_is_refused(tiny, store, way):
    folder = tiny("llama", model_type="phi3")
    error = refusal_of(checked, folder, {"type": f"context.{way}", "factor": 2})
    assert (error.code, error.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, "/r/0/type")
    assert "Phi3ForCausalLM" in error.detail
    assert "context.ntk" in error.hint
    plain, _ = rotary(folder)
    with operate(folder, store, {"type": "context.ntk", "factor": 2}) as modified:
        found, _ = rotary(modified.path)
    assert float(found[-1] / plain[-1]) == pytest.approx(1 / 2, rel=1e-5)


def test_what_cannot_be_extended_is_refused(tiny):
    linear, ntk, yarn = ({"type": f"context.{way}", "factor": 2} for way in ("linear", "ntk", "yarn"))
    for steps, pointer in (
        ((linear, ntk), "/r/1"),
        ((ntk, yarn), "/r/1"),
        ((ntk, ntk), "/r/1"),
        ((ntk | {"layers": [0]},), "/r/0/layers"),
        ((yarn | {"modules": ["attention"]},), "/r/0/modules"),
    ):
        error = refusal_of(checked, tiny(), *steps)
        assert (error.code, error.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, pointer)
