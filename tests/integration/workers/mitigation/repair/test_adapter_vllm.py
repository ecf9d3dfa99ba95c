"""vLLM loads the exported adapter, modules of different ranks included."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.unit.workers.mitigation.repair.support import RTN, operate, repair, windows
from workers.engine.environment import prepare

# Warnings of what vLLM imports are its own.
pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore")]


def test_the_wounded_checkpoint_with_the_adapter_is_the_merged_checkpoint(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    prepare()
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    tokens = windows(1, 48)[0].tolist()
    with (
        operate(tiny("llama"), tmp_path / "store", RTN) as wounded,
        operate(tiny("llama"), tmp_path / "store", RTN, repair(4)) as repaired,
    ):
        figures = repaired.manifest.steps[-1].figures
        assert figures["rank_least"] < figures["rank_most"] <= 16
        engine = LLM(
            str(wounded.path),
            dtype="float32",
            enforce_eager=True,
            max_model_len=64,
            kv_cache_memory_bytes=16 * 2**20,
            enable_lora=True,
            max_lora_rank=16,
            disable_log_stats=True,
        )
        asked = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
        prompt = [{"prompt_token_ids": tokens}]
        adapter = LoRARequest("repair", 1, str(repaired.path / "adapter"))
        found = []
        for request in (None, adapter):
            (output,) = engine.generate(prompt, asked, lora_request=request, use_tqdm=False)
            rows = output.prompt_logprobs[1:]
            found.append(np.array([row[token].logprob for row, token in zip(rows, tokens[1:], strict=True)]))
        expected = []
        for path in (wounded.path, repaired.path):
            model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
            with torch.no_grad():
                logp_TV = model(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)
            expected.append(logp_TV[torch.arange(len(tokens) - 1), torch.tensor(tokens[1:])].numpy())
        np.testing.assert_allclose(found[0], expected[0], atol=2e-3)
        # merged weights are rounded to bf16, the adapter beside them is not
        changed = np.abs(expected[1] - expected[0]).max()
        assert np.abs(found[1] - expected[1]).max() < 0.2 * changed
