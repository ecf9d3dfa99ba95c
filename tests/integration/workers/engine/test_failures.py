import json
from collections.abc import Callable
from pathlib import Path

import pytest

from app.contracts.errors import ErrorCode
from tests.support.packed import FOUR_BIT_FLOATS
from tests.support.refusals import refused
from workers.engine.pool import EnginePool
from workers.engine.scoring import ScoringEngine

Tiny = Callable[..., Path]
Packed = Callable[..., Path]


def start(pool: EnginePool, checkpoint: Path) -> ScoringEngine:
    return ScoringEngine(checkpoint, settings=pool.settings, max_model_len=128, pool=pool)


def changed(source: Path, folder: Path, **changes: object) -> Path:
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((source / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_an_architecture_that_vllm_has_not(tiny: Tiny, pool: EnginePool, tmp_path: Path) -> None:
    folder = changed(tiny("llama"), tmp_path / "model", architectures=["Mixtrl4CausalLM"])
    with refused(ErrorCode.CHECKPOINT_UNSUPPORTED, match="'Mixtrl4CausalLM'") as caught:
        start(pool, folder)
    assert "MixtralForCausalLM" in caught.value.hint


def test_a_packing_without_a_kernel_on_this_machine(packed: Packed, pool: EnginePool) -> None:
    with refused(ErrorCode.CHECKPOINT_UNSUPPORTED):
        start(pool, packed("llama", "W8A16"))


@pytest.mark.parametrize("scheme", FOUR_BIT_FLOATS)
def test_four_bit_floats_are_refused_and_vllm_would_have_no_kernel_either(
    packed: Packed, pool: EnginePool, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = packed("llama", scheme)
    with refused(ErrorCode.CHECKPOINT_UNSUPPORTED, match="NVFP4, MXFP4"):
        start(pool, checkpoint)
    monkeypatch.setattr("workers.engine.launch.check_served", lambda *_: None)
    with refused(ErrorCode.CHECKPOINT_UNSUPPORTED, match="kernel"):
        start(pool, checkpoint)


def test_layers_behind_the_final_norm_are_refused(tiny: Tiny, pool: EnginePool, tmp_path: Path) -> None:
    """vLLM would apply a sentence-transformers projection, and the states would not be the model's."""
    import torch
    from safetensors.torch import save_file

    folder = changed(tiny("llama"), tmp_path / "model")
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Dense", "type": "sentence_transformers.models.Dense"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    dense = folder / "1_Dense"
    dense.mkdir()
    (dense / "config.json").write_text(
        json.dumps(
            {
                "in_features": 64,
                "out_features": 8,
                "bias": False,
                "activation_function": "torch.nn.modules.linear.Identity",
            }
        )
    )
    save_file({"linear.weight": torch.ones(8, 64)}, dense / "model.safetensors")
    with refused(ErrorCode.CHECKPOINT_UNSUPPORTED, match="projection"):
        start(pool, folder)


def test_a_checkpoint_that_is_not_there_leaves_the_running_engine_alone(
    tiny: Tiny, pool: EnginePool, tmp_path: Path
) -> None:
    engine = start(pool, tiny("llama"))
    before = pool.starts
    with refused(ErrorCode.CHECKPOINT_NOT_FOUND):
        engine.load(tmp_path / "nothing")
    truncated = changed(tiny("llama", seed=1), tmp_path / "model")
    weights = truncated / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with refused(ErrorCode.CHECKPOINT_CORRUPT):
        engine.load(truncated)
    assert len(list(engine.score([[1, 2, 3]]))) == 1
    assert pool.starts == before
