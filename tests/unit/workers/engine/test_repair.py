"""A repair beside weights: factors of layers that run as one, and the folder that is served."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from app.contracts.blocks import ADAPTER, REPAIR
from app.contracts.errors import ErrorCode
from app.models.checkpoint import CHANNELS, inspect
from app.models.steps.repair import packed_base
from app.recipes.recipe import Recipe
from tests.support.quantizing import RECIPE
from tests.support.refusals import refused
from tests.support.repairs import random_factors, save_adapter
from workers.engine.repair import attach, stacked
from workers.engine.simulation import needs_eager, needs_hooks

Tiny = Callable[..., Path]
RTN = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
REPAIRED = {"type": "repair.lowrank", "rank": 4}


def recipe(*steps: dict[str, object]) -> Recipe:
    return RECIPE.validate_python(steps)


@pytest.mark.parametrize("missing", [None, 0, 1, 2])
def test_stacked_factors_are_those_of_each_part(missing: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, ranks = (7, 3, 5), (2, 4, 1)
    parts = [
        None if index == missing else (torch.randn(r, 6, generator=generator), torch.randn(o, r, generator=generator))
        for index, (o, r) in enumerate(zip(outputs, ranks, strict=True))
    ]
    x_TI = torch.randn(4, 6, generator=generator)
    expected = [
        torch.zeros(4, o) if part is None else x_TI @ part[0].T @ part[1].T
        for o, part in zip(outputs, parts, strict=True)
    ]
    down_RI, up_OR = stacked(parts, outputs)
    torch.testing.assert_close(x_TI @ down_RI.T @ up_OR.T, torch.cat(expected, dim=1))


def test_the_served_folder_is_the_base_with_the_adapter_beside_it(tiny: Tiny, tmp_path: Path) -> None:
    base = tiny("llama")
    adapter = save_adapter(tmp_path / "made", random_factors(base), scale=1.0)
    attach(base, adapter, tmp_path / "served")
    attach(base, adapter, tmp_path / "served")  # a replica that starts again
    info = inspect(tmp_path / "served")
    assert info.tensors == inspect(base).tensors
    assert (info.path / ADAPTER).resolve() == adapter
    assert needs_hooks(info.config)
    assert not needs_eager(info.config)
    assert info.config == inspect(base).config | {REPAIR: info.config[REPAIR]}
    other = save_adapter(tmp_path / "other", random_factors(base, ranks=(1,)), scale=1.0)
    attach(base, other, tmp_path / "served")
    assert json.loads((info.path / "config.json").read_bytes())[REPAIR] != info.config[REPAIR]


def test_a_repair_of_other_channels_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "made", random_factors(tiny("llama")), scale=1.0)
    scaled = {"inputs/model.layers.0.mlp.up_proj.weight": np.full(64, 2, dtype=np.float32)}
    np.savez(adapter / CHANNELS, **scaled)  # type: ignore[arg-type]
    with refused(ErrorCode.CHECKPOINT_UNSUPPORTED, match=r"layers\.0\.mlp\.up_proj"):
        attach(tiny("llama"), adapter, tmp_path / "served")


def test_what_is_below_a_repair_is_packed() -> None:
    pruned = {"type": "prune.wanda", "sparsity": 0.5}
    base = packed_base(recipe(pruned, RTN, REPAIRED), "/repair")
    assert base == recipe(pruned, RTN | {"form": "packed"})


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ((), "does not end with repair.lowrank"),
        ((RTN,), "does not end with repair.lowrank"),
        ((RTN, REPAIRED, {"type": "norm.tweak"}), "does not end with repair.lowrank"),
        ((RTN, REPAIRED | {"iterations": 2}), "rounds"),
        ((REPAIRED,), "can pack"),
        (({"type": "prune.magnitude", "sparsity": 0.5}, REPAIRED), "can pack"),
        (({"type": "quantize.dynamic", "bits": 4.5, "mixed": True}, REPAIRED), "mixes widths"),
        (({"type": "quantize.smoothquant"}, REPAIRED), "activations"),
        (({"type": "quantize.fp8", "activations": "dynamic"}, REPAIRED), "activations"),
        ((RTN, {"type": "quantize.activations", "bits": 8}, REPAIRED), "activations"),
    ],
)
def test_what_cannot_be_served_beside_packed_weights_is_refused(steps: tuple[dict[str, object], ...], why: str) -> None:
    with refused(ErrorCode.RECIPE_NOT_APPLICABLE, "/repair", match=why):
        packed_base(recipe(*steps), "/repair")
