"""A temperature in the checkpoint against transformers' logits of the unmodified one over T, in float64."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode
from app.models.checkpoint import inspect
from tests.support.pruning import operate, rewrite, weights
from tests.support.refusals import refusal_of
from workers.surgery.decode import divided

KINDS = ["llama", "llama-untied", "qwen2", "gemma2", "granite", "mixtral"]
NORM = "model.norm.weight"
TOKENS_1L = torch.randint(2, 300, (1, 40), generator=torch.Generator().manual_seed(3))
# Half a step of bf16 beside 1.
HALF_STEP = 2.0**-8


def at(temperature):
    return {"type": "decode.temperature", "temperature": temperature}


def gained(folder, stored_D):
    """The checkpoint with another final norm."""
    return rewrite(folder, lambda tensors: tensors.update({NORM: stored_D}))


def spread(kind):
    """Stored weights whose gains are multiples of 1/64 from 1/2 to 3/2."""
    gain_D = 0.5 + torch.randint(0, 65, (64,), generator=torch.Generator().manual_seed(7)) / 64
    return (gain_D - (1 if kind == "gemma2" else 0)).to(torch.bfloat16)


@torch.no_grad()
def logits(folder):
    """(T, V) in float64, but for norms, which transformers computes in float32, and for experts, which torch does."""
    wide = torch.float32 if inspect(folder).architecture == "MixtralForCausalLM" else torch.float64
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=wide)
    return model(TOKENS_1L).logits[0].double()


def kl(p_TV, q_TV):
    """(T,) KL(p‖q) of the distributions of two rows of logits, nats."""
    log_p_TV, log_q_TV = p_TV.log_softmax(-1), q_TV.log_softmax(-1)
    return (log_p_TV.exp() * (log_p_TV - log_q_TV)).sum(-1)


@pytest.mark.parametrize(("kind", "temperature"), [*((kind, 2.0) for kind in KINDS), ("llama", 0.5)])
def test_a_power_of_two_divides_every_logit_exactly(copy, store, kind, temperature):
    folder = gained(copy(kind, scale=16.0), spread(kind))
    before_TV = logits(folder)
    assert float(before_TV.abs().max()) > 1, "or a soft cap of 30 would hardly tell"
    with operate(folder, store, at(temperature)) as modified:
        torch.testing.assert_close(logits(modified.path), before_TV / temperature, rtol=1e-5, atol=1e-6)
        assert modified.manifest.steps[0].figures == {"rounding": 0.0}
        assert modified.manifest.steps[0].warnings == ()
        touched = weights(modified.path)
    assert {name for name, tensor in weights(folder).items() if not torch.equal(tensor, touched[name])} == {NORM}


@pytest.mark.parametrize(("kind", "temperature"), [*((kind, 0.7) for kind in KINDS), ("llama", 0.3), ("gemma2", 3.0)])
def test_any_other_temperature_is_told_by_how_much_it_is_missed(copy, store, kind, temperature):
    """Every token: what the step gives is as far from the unmodified model as p_T is, up to what rounded gains cost,
    which is far less; and perplexity is that of p_T."""
    offset = 1.0 if kind == "gemma2" else 0.0
    gain_D = torch.rand(64, generator=torch.Generator().manual_seed(5)) + 0.5
    folder = gained(copy(kind, scale=16.0), (gain_D - offset).bfloat16())
    before_TV = logits(folder)
    with operate(folder, store, at(temperature)) as modified:
        made_TV, figures = logits(modified.path), modified.manifest.steps[0].figures
        stored_D, found_D = weights(folder)[NORM].double(), weights(modified.path)[NORM].double()
    wanted_D = (stored_D + offset) / temperature
    missed = float((found_D + offset - wanted_D).norm() / wanted_D.norm())
    assert figures["rounding"] == pytest.approx(missed, rel=1e-9)
    exact_TV = before_TV / temperature
    far_T, rounded_T = kl(before_TV, exact_TV), kl(exact_TV, made_TV)
    assert float(far_T.mean()) > 0.01
    assert float(rounded_T.mean()) < 1e-3 * float(far_T.mean())
    torch.testing.assert_close(kl(before_TV, made_TV), far_T, rtol=0.03, atol=2e-3)
    next_T1 = TOKENS_1L[0, 1:, None]
    lost, wanted = (-of_TV[:-1].log_softmax(-1).gather(1, next_T1).mean() for of_TV in (made_TV, exact_TV))
    assert float(lost) == pytest.approx(float(wanted), rel=1e-3)
    assert torch.equal(made_TV.argmax(-1), before_TV.argmax(-1)), "no temperature changes the first choice"


def test_it_goes_with_rounded_weights_in_either_order_and_with_packed_ones_behind_them(copy, store):
    folder = gained(copy("llama"), spread("llama"))
    coarse = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
    with operate(folder, store, coarse, at(1.7)) as one, operate(folder, store, at(1.7), coarse) as other:
        first, second = weights(one.path), weights(other.path)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    packing = coarse | {"form": "packed"}
    with operate(folder, store, packing) as packed, operate(folder, store, packing, at(2.0)) as warmer:
        assert inspect(warmer.path).scheme == inspect(packed.path).scheme != "plain"
        first, second = weights(packed.path), weights(warmer.path)
    assert torch.equal(second[NORM], first[NORM] / 2)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items() if name != NORM)


def test_a_gain_below_one_that_gemma_cannot_hold_is_a_warning(copy, store):
    """At T = 100 a gain of 1.25 becomes 0.0125, stored as −0.9875, beside which bf16 has steps of 1/256."""
    hot = at(100.0)
    for kind in ("llama", "gemma2"):
        gain_D = torch.rand(64, generator=torch.Generator().manual_seed(5)) / 2
        folder = gained(copy(kind, name=kind), gain_D.bfloat16())
        with operate(folder, store, hot) as modified:
            (record,) = modified.manifest.steps
        assert (record.figures["rounding"] > HALF_STEP) == (kind == "gemma2") == bool(record.warnings)
    assert record.warnings[0].facts["percent"] == 100 * record.figures["rounding"]


def test_a_gain_that_leaves_the_dtype_is_refused(copy, store):
    folder = gained(copy("llama"), torch.full((64,), 1e38, dtype=torch.bfloat16))
    error = refusal_of(operate, folder, store, at(0.01))
    assert error.code is ErrorCode.CHECKPOINT_NOT_FINITE
    assert NORM in error.detail


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_gains_are_divided_to_the_nearest_number_of_their_dtype(dtype):
    stored_D = (torch.rand(1000, generator=torch.Generator().manual_seed(2)) * 4 - 2).to(dtype)
    for temperature in (0.37, 1.9):
        found_D, rounding = divided(stored_D, temperature, offset=0.0)
        off_D = (found_D.double() * temperature / stored_D.double() - 1).abs()
        assert found_D.dtype is dtype
        assert float(off_D.max()) <= torch.finfo(dtype).eps / 2 * (1 + 1e-6)
        assert 0 < rounding < torch.finfo(dtype).eps / 2
