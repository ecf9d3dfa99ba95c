from typing import Any

import pytest
import torch

from app.recipes.base import Step
from app.recipes.prune import PruneMagnitude
from app.recipes.quantize import QuantizeRtn
from workers.surgery import prune_magnitude, quantize_rtn
from workers.surgery.steps import Runner, make_runner

WEIGHT = torch.randn(6, 16, generator=torch.Generator().manual_seed(1))


def runner(model: type[Step], **fields: Any) -> Runner:
    names = {QuantizeRtn: "quantize.rtn", PruneMagnitude: "prune.magnitude"}
    return make_runner(model.model_validate({"type": names[model]} | fields))  # type: ignore[index]


def test_rtn_does_what_the_step_says() -> None:
    found = runner(QuantizeRtn, bits=3, group_size=8, symmetric=True)
    assert list(found.passes()) == []
    expected = quantize_rtn.quantize(WEIGHT, bits=3, group_size=8, symmetric=True)
    assert torch.equal(found.apply("w", WEIGHT), expected)
    assert found.bits_per_weight(16) == 3 + 16 / 8
    assert found.nominal_sparsity() is None


@pytest.mark.parametrize(
    ("fields", "expected", "share"),
    [
        ({"sparsity": 0.3, "scope": "row"}, prune_magnitude.prune_rows(WEIGHT, 0.3), 0.3),
        ({"sparsity": 0.3}, prune_magnitude.prune_matrix(WEIGHT, 0.3), 0.3),
        ({"pattern": "1:4"}, prune_magnitude.prune_pattern(WEIGHT, 1, 4), 0.75),
    ],
)
def test_pruning_does_what_the_step_says(fields: dict[str, Any], expected: torch.Tensor, share: float) -> None:
    found = runner(PruneMagnitude, **fields)
    assert list(found.passes()) == []
    assert torch.equal(found.apply("w", WEIGHT), expected)
    assert found.bits_per_weight(16) is None
    assert found.nominal_sparsity() == share


def test_a_global_share_looks_at_the_weights_first() -> None:
    found = runner(PruneMagnitude, sparsity=0.5, scope="global")
    weights = {"a": WEIGHT, "b": WEIGHT * 10}
    for visit in found.passes():
        for name, weight in weights.items():
            visit(name, weight)
    zeros = {name: int((found.apply(name, weight) == 0).sum()) for name, weight in weights.items()}
    assert sum(zeros.values()) == 96
    assert zeros["a"] > zeros["b"]


def test_an_unknown_step_is_an_error() -> None:
    with pytest.raises(TypeError, match="test is no"):
        make_runner(Step(type="test"))
