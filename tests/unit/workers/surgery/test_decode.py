"""A temperature in the checkpoint against transformers' logits of the unmodified one over T, in float64."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import inspect
from app.recipes.recipe import Recipe
from tests.support.copies import Copy
from workers.surgery.decode import divided
from workers.surgery.modified import Modified
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
KINDS = ["llama", "llama-untied", "qwen2", "gemma2", "granite", "mixtral"]
NORM = "model.norm.weight"
TOKENS_1L = torch.randint(2, 300, (1, 40), generator=torch.Generator().manual_seed(3))
# Half a step of bf16 beside 1.
HALF_STEP = 2.0**-8


def at(temperature: float) -> dict[str, Any]:
    return {"type": "decode.temperature", "temperature": temperature}


def operate(folder: Path, tmp_path: Path, *steps: dict[str, Any]) -> Modified:
    store = CheckpointStore(tmp_path / "store", 10**9)
    return apply(inspect(folder), RECIPE.validate_python(steps), store=store)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def gained(folder: Path, stored_D: torch.Tensor) -> Path:
    """The checkpoint with another final norm."""
    save_file(
        load_file(folder / "model.safetensors") | {NORM: stored_D}, folder / "model.safetensors", {"format": "pt"}
    )
    return folder


def spread(kind: str) -> torch.Tensor:
    """Stored weights whose gains are multiples of 1/64 from 1/2 to 3/2."""
    gain_D = 0.5 + torch.randint(0, 65, (64,), generator=torch.Generator().manual_seed(7)) / 64
    return (gain_D - (1 if kind == "gemma2" else 0)).to(torch.bfloat16)


@torch.no_grad()
def logits(folder: Path) -> torch.Tensor:
    """(T, V) in float64, but for norms, which transformers computes in float32, and for experts, which torch does."""
    wide = torch.float32 if inspect(folder).architecture == "MixtralForCausalLM" else torch.float64
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=wide)
    found: torch.Tensor = model(TOKENS_1L).logits[0].double()
    return found


def kl(p_TV: torch.Tensor, q_TV: torch.Tensor) -> torch.Tensor:
    """(T,) KL(p‖q) of the distributions of two rows of logits, nats."""
    log_p_TV, log_q_TV = p_TV.log_softmax(-1), q_TV.log_softmax(-1)
    return (log_p_TV.exp() * (log_p_TV - log_q_TV)).sum(-1)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
@pytest.mark.parametrize("kind", KINDS)
def test_a_power_of_two_divides_every_logit_exactly(copy: Copy, tmp_path: Path, kind: str, temperature: float) -> None:
    folder = gained(copy(kind, scale=16.0), spread(kind))
    before_TV = logits(folder)
    assert float(before_TV.abs().max()) > 1, "or a soft cap of 30 would hardly tell"
    with operate(folder, tmp_path, at(temperature)) as modified:
        torch.testing.assert_close(logits(modified.path), before_TV / temperature, rtol=1e-5, atol=1e-6)
        assert modified.manifest.steps[0].figures == {"rounding": 0.0}
        assert modified.manifest.steps[0].warnings == ()
        touched = weights(modified.path)
    assert {name for name, tensor in weights(folder).items() if not torch.equal(tensor, touched[name])} == {NORM}


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.3, 3.0])
@pytest.mark.parametrize("kind", KINDS)
def test_any_other_temperature_is_told_by_how_much_it_is_missed(
    copy: Copy, tmp_path: Path, kind: str, temperature: float
) -> None:
    """Every token: what the step gives is as far from the unmodified model as p_T is, up to what rounded gains cost,
    which is far less; and perplexity is that of p_T."""
    offset = 1.0 if kind == "gemma2" else 0.0
    gain_D = torch.rand(64, generator=torch.Generator().manual_seed(5)) + 0.5
    folder = gained(copy(kind, scale=16.0), (gain_D - offset).bfloat16())
    before_TV = logits(folder)
    with operate(folder, tmp_path, at(temperature)) as modified:
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


@pytest.mark.parametrize("kind", KINDS)
def test_a_temperature_of_one_changes_no_bit(copy: Copy, tmp_path: Path, kind: str) -> None:
    """Small weights among them, whose last bits 1 + w does not hold."""
    stored_D = (torch.randn(64, generator=torch.Generator().manual_seed(1)) * 2.0 ** -torch.arange(64)).bfloat16()
    folder = gained(copy(kind), stored_D)
    with operate(folder, tmp_path, at(1.0)) as modified:
        assert inspect(modified.path).config == inspect(folder).config
        after = weights(modified.path)
        assert modified.manifest.steps[0].figures == {"rounding": 0.0}
    before = weights(folder)
    assert all(torch.equal(before[name], after[name]) for name in before.keys() - {"lm_head.weight"})


def test_it_goes_with_rounded_weights_in_either_order_and_with_packed_ones_behind_them(
    copy: Copy, tmp_path: Path
) -> None:
    folder = gained(copy("llama"), spread("llama"))
    coarse = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
    with operate(folder, tmp_path, coarse, at(1.7)) as one, operate(folder, tmp_path, at(1.7), coarse) as other:
        first, second = weights(one.path), weights(other.path)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    packing = coarse | {"form": "packed"}
    with operate(folder, tmp_path, packing) as packed, operate(folder, tmp_path, packing, at(2.0)) as warmer:
        assert inspect(warmer.path).scheme == inspect(packed.path).scheme != "plain"
        first, second = weights(packed.path), weights(warmer.path)
    assert torch.equal(second[NORM], first[NORM] / 2)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items() if name != NORM)


def test_the_manifest_tells_how_far_the_gain_is(copy: Copy, tmp_path: Path) -> None:
    with operate(copy("llama"), tmp_path, at(2.0)) as modified:
        (norm,) = modified.manifest.norms
    assert (norm.name, norm.reconstruction_error, norm.steps) == (NORM, 0.5, (0,))


def test_a_gain_below_one_that_gemma_cannot_hold_is_a_warning(copy: Copy, tmp_path: Path) -> None:
    """At T = 100 a gain of 1.25 becomes 0.0125, stored as −0.9875, beside which bf16 has steps of 1/256."""
    hot = at(100.0)
    for kind in ("llama", "gemma2"):
        gain_D = torch.rand(64, generator=torch.Generator().manual_seed(5)) / 2
        folder = gained(copy(kind, name=kind), gain_D.bfloat16())
        with operate(folder, tmp_path / kind, hot) as modified:
            (record,) = modified.manifest.steps
        assert (record.figures["rounding"] > HALF_STEP) == (kind == "gemma2") == bool(record.warnings)
    assert record.warnings == (
        "temperature 100 is not exact: rounded to the checkpoint's dtype, the final norm's gains are off by "
        f"{100 * record.figures['rounding']:.2g} % (root mean square), more than the dtype's own precision of 0.39 %",
    )


def test_a_gain_that_leaves_the_dtype_is_refused(copy: Copy, tmp_path: Path) -> None:
    folder = gained(copy("llama"), torch.full((64,), 1e38, dtype=torch.bfloat16))
    with pytest.raises(HemostatError) as caught:
        operate(folder, tmp_path, at(0.01))
    assert caught.value.code is ErrorCode.CHECKPOINT_NOT_FINITE
    assert NORM in caught.value.detail


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_gains_are_divided_to_the_nearest_number_of_their_dtype(dtype: torch.dtype) -> None:
    stored_D = (torch.rand(1000, generator=torch.Generator().manual_seed(2)) * 4 - 2).to(dtype)
    for temperature in (0.37, 1.9):
        found_D, rounding = divided(stored_D, temperature, offset=0.0)
        off_D = (found_D.double() * temperature / stored_D.double() - 1).abs()
        assert found_D.dtype is dtype
        assert float(off_D.max()) <= torch.finfo(dtype).eps / 2 * (1 + 1e-6)
        assert 0 < rounding < torch.finfo(dtype).eps / 2


def test_gains_of_zero_stay_zero() -> None:
    found_D, rounding = divided(torch.zeros(8, dtype=torch.bfloat16), 0.3, offset=0.0)
    assert not bool(found_D.any()) and rounding == 0.0
