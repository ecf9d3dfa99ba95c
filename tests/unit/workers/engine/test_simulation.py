"""What an engine refuses to simulate."""

import json
from pathlib import Path
from typing import Any

import torch

from app.contracts.blocks import SECTION as BLOCKS
from app.contracts.errors import ErrorCode
from app.contracts.simulation import SECTION
from tests.support.refusals import refused
from workers.engine.fakes import grouped
from workers.engine.simulation import refuse_compiled, section_at, section_of

_A8: dict[str, Any] = {"activations": {"bits": 8, "modules": ["model.layers.0.mlp.down_proj"]}}


def test_a_folder_without_the_section_asks_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert section_at(tmp_path) is None


def test_activations_are_quantized_once() -> None:
    packed: dict[str, Any] = {
        "quantization_config": {"config_groups": {"group_0": {"weights": {}, "input_activations": {}}}}
    }
    assert section_of({SECTION: _A8, **packed}) is not None
    packed["quantization_config"]["config_groups"]["group_0"]["input_activations"] = {"num_bits": 8}
    with refused(ErrorCode.CHECKPOINT_UNSUPPORTED):
        section_of({SECTION: _A8, **packed})


def test_compiled_engines_simulate_nothing_but_store_dtypes() -> None:
    refuse_compiled({}, compiled=True)
    refuse_compiled({SECTION: {"kv_cache": {"dtype": "fp8"}}}, compiled=True)
    for asked in ({SECTION: _A8}, {BLOCKS: {"sha256": "0" * 64}}):
        refuse_compiled(asked, compiled=False)
        with refused(ErrorCode.ENGINE_FAILED, match="eager") as caught:
            refuse_compiled(asked, compiled=True)
        assert "HEMOSTAT_ENGINE_COMPILE" in caught.value.hint


def test_groups_of_a_head_have_grids_of_their_own() -> None:
    x = torch.tensor([[1.0, 7.0, 100.0, 700.0], [-7.0, 2.0, 0.0, 0.0]])
    assert torch.allclose(grouped(x, 4, 2, symmetric=True), x)
    assert grouped(x, 4, 4, symmetric=True).tolist() == [[0.0, 0.0, 100.0, 700.0], [-7.0, 2.0, 0.0, 0.0]]
