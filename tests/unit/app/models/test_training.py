import pytest
from pydantic import TypeAdapter

from app.models.checkpoint import inspect
from app.models.training import MIXED_TOKENS, MIXED_WINDOWS, measured_tokens
from app.recipes.norm import TWEAK_TOKENS
from app.recipes.prune import RECOVERY_TOKENS
from app.recipes.recipe import Recipe
from workers.mitigation.dynamic_scaling import plan
from workers.mitigation.gradient_pruning import recovery
from workers.surgery.blockwise.walk import BATCH_TOKENS

RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
TEXT = {"calibration_windows": 10, "calibration_window": 100}


@pytest.mark.parametrize(
    ("step", "tokens", "seconds"),
    [
        ({"type": "quantize.rtn", "bits": 4}, 0, 0),
        ({"type": "quantize.gptq", "bits": 4, **TEXT}, 0, 0),
        # blocks three times, and steps of 1,024 tokens
        ({"type": "repair.lowrank", "rank": 4, **TEXT}, 3 * 1000 + 60 * 1024, 0),
        ({"type": "repair.lowrank", "rank": 4, "block_epochs": 0, "distill_steps": 0, **TEXT}, 0, 0),
        ({"type": "repair.lowrank", "rank": 4, "block_epochs": 1, "distill_s": 30.0, **TEXT}, 1000, 30),
        # a step is one window at least
        (
            {"type": "repair.lowrank", "rank": 4, "block_epochs": 0, "distill_steps": 2, "calibration_window": 4096},
            2 * 4096,
            0,
        ),
        # four passes of gradients, six times over the text
        ({"type": "prune.gradient", "sparsity": 0.5, **TEXT}, 10 * 1000, 0),
        ({"type": "prune.gradient", "sparsity": 0.5, "reconstruct": False, "passes": 2, **TEXT}, 2 * 1000, 0),
        ({"type": "prune.gradient", "sparsity": 0.5, "recovery_s": 600.0, **TEXT}, 10 * 1000, 600),
        ({"type": "prune.gradient", "sparsity": 0.5, "recovery_steps": 7, **TEXT}, 10 * 1000 + 7 * 512, 0),
        ({"type": "quantize.dynamic", "bits": 4, **TEXT}, 3 * 1000, 0),
        # a step is a batch: four windows of 512, no more than there are, one where it is longer
        ({"type": "norm.tweak", "steps": 7}, 7 * 2048, 0),
        ({"type": "norm.tweak", **TEXT}, 20 * 1000, 0),
        ({"type": "norm.tweak", "steps": 2, "calibration_window": 4096}, 2 * 4096, 0),
    ],
)
def test_what_a_step_trains_is_counted(step, tokens, seconds):
    (parsed,) = RECIPE.validate_python([step])
    assert (parsed.trained_tokens, parsed.trained_seconds) == (tokens, seconds)


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"bits": 3}, 0),  # every module has the least width
        ({"mixed": False}, 0),
        # four units of each of three layers, five widths
        ({}, 2 * 100 * 5 * 4 * (1 + 2 / 3 + 1 / 3)),
        ({"calibration_windows": 1, "calibration_window": 1000}, 256 * 5 * 4 * 2),
        ({"layers": [2]}, 2 * 100 * 5 * 4 / 3),
        ({"modules": ["k_proj", "v_proj", "down_proj"]}, 2 * 100 * 5 * 2 * 2),
        # packed, two widths
        ({"form": "packed", "activation_bits": 8, "symmetric": True, "group_size": None}, 2 * 100 * 2 * 4 * 2),
    ],
)
def test_what_a_mixture_measures_is_counted(tiny, monkeypatch, fields, tokens):
    monkeypatch.setattr("app.models.steps.quantize.served_devices", lambda: ("cpu",))
    monkeypatch.setattr("app.models.steps.quantize.has_amx", lambda: True)
    monkeypatch.setattr("app.models.steps.quantize.has_avx512", lambda: True)
    step = {"type": "quantize.dynamic", "bits": 4.5, "group_size": 32, "mixed": True, **TEXT, **fields}
    (parsed,) = RECIPE.validate_python([step | ({"bits": 4} if fields.get("mixed") is False else {})])
    assert measured_tokens(parsed, inspect(tiny("llama", num_hidden_layers=3))) == pytest.approx(tokens)


def test_steps_are_as_long_as_the_workers():
    """The front end may not import these."""
    assert RECOVERY_TOKENS == recovery.STEP_TOKENS
    assert TWEAK_TOKENS == BATCH_TOKENS
    assert (MIXED_WINDOWS, MIXED_TOKENS) == (plan.WINDOWS, plan.TOKENS)
