"""How a server is started for a checkpoint that asks for more than its weights."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.contracts.blocks import SECTION as BLOCKS
from app.contracts.errors import ErrorCode
from app.contracts.simulation import SECTION
from app.models.checkpoint import inspect
from app.settings import Settings
from tests.support.refusals import refused
from workers.engine.serving.arguments import ServerPlan, server_arguments

Tiny = Callable[..., Path]
_A8: dict[str, Any] = {SECTION: {"activations": {"bits": 8, "modules": ["model.layers.0.mlp.down_proj"]}}}
_BLOCKS: dict[str, Any] = {BLOCKS: {"sha256": "0" * 64}}


def arguments(tiny: Tiny, sections: dict[str, Any], device: str = "cpu", *, hooked: bool = True) -> list[str]:
    info = inspect(tiny("llama"))
    info = replace(info, config=info.config | sections)
    plan = ServerPlan("name", info, info.path, "bfloat16", device, "127.0.0.1", 1, 256, 1 << 20, hooked=hooked)
    return server_arguments(plan, Settings(engine_compile=True, share_serving=0.4))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_is_simulated_runs_eagerly_and_what_is_corrected_as_it_comes(tiny: Tiny, device: str) -> None:
    plain = arguments(tiny, {}, device)
    assert "--enforce-eager" not in plain
    assert arguments(tiny, _BLOCKS, device) == plain
    simulated = arguments(tiny, _A8, device)
    assert [one for one in simulated if one != "--enforce-eager"] == plain
    assert "--enforce-eager" in simulated


def test_a_dtype_of_the_cache_is_an_argument(tiny: Tiny) -> None:
    told = arguments(tiny, {SECTION: {"kv_cache": {"dtype": "fp8_e5m2"}}}, hooked=False)
    assert told[told.index("--kv-cache-dtype") + 1] == "fp8_e5m2"
    assert "--enforce-eager" not in told


@pytest.mark.parametrize("asked", [_A8, _BLOCKS])
def test_a_server_without_hooks_would_not_do_it(tiny: Tiny, asked: dict[str, Any]) -> None:
    with refused(ErrorCode.CHECKPOINT_UNSUPPORTED):
        arguments(tiny, asked, hooked=False)
