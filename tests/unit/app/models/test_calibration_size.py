"""How much text steps take by themselves: by hand from published widths."""

import pytest
from pydantic import TypeAdapter

from app.models.calibration_size import sized
from app.models.checkpoint import inspect
from app.models.pace import Pace
from app.models.surgery_cost import surgery_cost
from app.recipes.base import Calibrated
from app.recipes.recipe import Recipe
from app.settings import Settings
from tests.support.published_models import info_of

RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
GPTQ = {"type": "quantize.gptq", "bits": 4}


def windows(info, held=None, **step):
    (made,) = RECIPE.validate_python([step])
    found = sized(made, info, held)
    assert isinstance(found, Calibrated)
    assert found == made.model_copy(update={"calibration_windows": found.calibration_windows})
    return found.calibration_windows


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("Qwen2.5-0.5B", 38),  # 4 x 4,864 / 512
        ("Llama-3.1-8B", 112),  # 4 x 14,336 / 512
        ("Llama-3.1-70B", 224),  # 4 x 28,672 / 512
    ],
)
def test_a_step_with_second_moments_takes_four_tokens_per_input_of_the_widest_layer(tiny, model, expected):
    info = info_of(model, tiny)
    assert windows(info, **GPTQ) == expected
    assert windows(info, type="prune.gradient", sparsity=0.5) == expected
    assert windows(info, type="quantize.dynamic", bits=4, calibration_window=256) == 2 * expected
    assert windows(info, **GPTQ, calibration_window=8) == min(64 * expected, 4096)


def test_what_was_asked_for_stays_and_so_does_a_step_that_inverts_nothing(tiny):
    info = info_of("Llama-3.1-8B", tiny)
    assert windows(info, **GPTQ, calibration_windows=16) == 16
    assert windows(info, **GPTQ, calibration_windows=128) == 128
    assert windows(info, type="prune.wanda", sparsity=0.5) == 32
    assert windows(info, type="repair.lowrank", rank=4) == 64


def test_a_text_that_has_less_is_taken_whole_but_no_less_is_asked_for_than_before(tiny):
    info = info_of("Llama-3.1-8B", tiny)
    assert windows(info, 48 * 512 + 511, **GPTQ) == 48
    assert windows(info, 10_000, **GPTQ) == 32
    assert windows(info, 10**6, **GPTQ) == 112


def test_a_narrow_model_takes_what_it_took(tiny):
    """Up to 4,096 inputs 32 windows are enough: the demo model's widest layer has 1,536."""
    (step,) = RECIPE.validate_python([GPTQ])
    assert sized(step, info_of("Qwen2.5-0.5B", tiny), 16_384) == step
    assert sized(step, inspect(tiny("llama", intermediate_size=4096)), None) == step


def test_the_estimate_names_what_the_shipped_text_lacks_and_counts_what_it_has(tiny):
    info = info_of("Llama-3.1-8B", tiny)

    def lines(**step):
        return " ".join(surgery_cost(info, RECIPE.validate_python([step]), Pace(1400.0, ""), info, Settings())[1])

    told = lines(**GPTQ)
    assert "a step that looks at 24,064 calibration tokens" in told  # 96,897 bytes are 24,224 tokens: 47 windows
    assert "4 per input of the widest layer (14,336); give 57,344 tokens" in told
    enough = lines(**GPTQ, calibration={"source": "self", "tokens": 57_344})
    assert "57,344 calibration tokens" in enough
    assert "widest layer" not in enough
