"""What steps have to do, counted by hand on a tiny model: 2 layers, 64 wide, 128 inside, 4 heads, 2 of keys."""

import pytest

from app.models.checkpoint import inspect
from app.models.step_work import Work, work_of
from app.recipes.recipe import STEPS

TEXT = {"calibration_windows": 4, "calibration_window": 32}


def test_work_is_counted_from_shapes(tiny):
    info = inspect(tiny())
    hidden, inner = info.hidden_size, info.config["intermediate_size"]
    keys = hidden * info.config["num_key_value_heads"] // info.config["num_attention_heads"]
    weights = info.layers * (2 * hidden * hidden + 2 * keys * hidden + 3 * inner * hidden)
    within = weights + info.layers * 2 * hidden
    squared = info.layers * (2 * (hidden + keys) * hidden**2 + 2 * inner * hidden**2 + hidden * inner**2)
    cubes = info.layers * (3 * hidden**3 + inner**3)

    def found(kind, **options):
        return work_of(STEPS[kind].model_validate({"type": kind} | options), info)

    gptq, awq, wanda = STEPS["quantize.gptq"], STEPS["quantize.awq"], STEPS["prune.wanda"]
    assert found("quantize.gptq", bits=4, group_size=32, **TEXT) == pytest.approx(
        (128 * within, gptq.weighed * weights, squared + gptq.factors * cubes, 0)
    )
    assert found("quantize.awq", bits=4, group_size=32, **TEXT) == pytest.approx(
        (128 * within, awq.weighed * weights, 20 * squared, 0)
    )
    assert found("prune.wanda", sparsity=0.5, **TEXT) == pytest.approx((128 * within, wanda.weighed * weights, 0, 0))
    assert found("quantize.rtn", bits=4, group_size=32) == Work()
