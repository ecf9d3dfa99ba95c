"""vLLM serves the exported adapter on the wounded checkpoint, whatever wounded it, modules of different ranks
included."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from tests.support.processor import needs_avx512
from tests.unit.workers.mitigation.repair.support import PRUNE, RTN, operate, repair, windows
from workers.engine import launch
from workers.engine.environment import prepare

# Warnings of what vLLM imports are its own.
pytestmark = pytest.mark.filterwarnings("ignore")

WOUNDS = [
    RTN,
    PRUNE,
    {"type": "prune.layers", "layers": [1]},
    {"type": "prune.channels", "ratio": 0.25},
    {"type": "lowrank.svd", "ratio": 0.3},
]


@contextmanager
def served(checkpoint: Path, dtype: str = "float32") -> Iterator[Any]:
    """A vLLM engine that takes adapters."""
    prepare()
    from vllm import LLM

    engine = LLM(
        str(checkpoint),
        dtype=dtype,
        enforce_eager=True,
        max_model_len=64,
        kv_cache_memory_bytes=16 * 2**20,
        enable_lora=True,
        max_lora_rank=16,
        disable_log_stats=True,
    )
    try:
        yield engine
    finally:
        launch.stop(engine.llm_engine)
        launch.end_groups()


def of_vllm(engine: Any, tokens: list[int], adapter: Path | None) -> NDArray[np.float64]:
    """logp of each token of a prompt but the first."""
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    (output,) = engine.generate(
        [{"prompt_token_ids": tokens}],
        SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0),
        lora_request=None if adapter is None else LoRARequest("repair", 1, str(adapter)),
        use_tqdm=False,
    )
    rows = output.prompt_logprobs[1:]
    return np.array([row[token].logprob for row, token in zip(rows, tokens[1:], strict=True)])


def of_transformers(checkpoint: Path, tokens: list[int]) -> NDArray[np.float64]:
    """The same by transformers, in float32."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    with torch.no_grad():
        logp_TV = model(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)
    return logp_TV[torch.arange(len(tokens) - 1), torch.tensor(tokens[1:])].double().numpy()


@pytest.mark.parametrize(
    ("kind", "wound"),
    [*(("llama", wound) for wound in WOUNDS), ("qwen2", RTN), ("gemma2", RTN)],
    ids=lambda one: one if isinstance(one, str) else one["type"],
)
def test_the_wounded_checkpoint_with_the_adapter_is_the_merged_checkpoint(
    tiny: Callable[..., Path], tmp_path: Path, kind: str, wound: dict[str, Any]
) -> None:
    """Also where the checkpoint has fewer layers, or narrower ones, than the reference had."""
    tokens = windows(1, 48)[0].tolist()
    with (
        operate(tiny(kind), tmp_path / "store", wound) as wounded,
        operate(tiny(kind), tmp_path / "store", wound, repair(4)) as repaired,
    ):
        figures = repaired.manifest.steps[-1].figures
        assert figures["rank_least"] < figures["rank_most"] <= 16
        with served(wounded.path) as engine:
            without, beside = (of_vllm(engine, tokens, adapter) for adapter in (None, repaired.path / "adapter"))
        before, merged = (of_transformers(path, tokens) for path in (wounded.path, repaired.path))
        np.testing.assert_allclose(without, before, atol=2e-3)
        # merged weights are rounded to bf16, the adapter beside them is not
        assert np.abs(beside - merged).max() < 0.2 * np.abs(merged - before).max()


@needs_avx512
def test_what_repairs_simulated_codes_serves_on_the_packed_ones(tiny: Callable[..., Path], tmp_path: Path) -> None:
    """In bf16, which vLLM's kernels for packed weights take."""
    rtn = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
    tokens = windows(1, 48)[0].tolist()
    with (
        operate(tiny("llama"), tmp_path / "store", rtn | {"form": "packed"}) as packed,
        operate(tiny("llama"), tmp_path / "store", rtn, repair(4)) as repaired,
    ):
        with served(packed.path, "bfloat16") as engine:
            without, beside = (of_vllm(engine, tokens, adapter) for adapter in (None, repaired.path / "adapter"))
        merged = of_transformers(repaired.path, tokens)
    assert np.abs(beside - merged).max() < 0.4 * np.abs(without - merged).max()
