"""Engines for the head's tests, and real hidden states of the demo model at several strengths of quantization."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from workers.surgery.quantize_rtn import quantize
from workers.text.shipped import shipped_documents


@dataclass(frozen=True)
class DemoStates:
    """The demo model's hidden states over a shipped text, those of its quantized versions, and the tokens predicted."""

    reference_TD: torch.Tensor
    candidates: dict[int, torch.Tensor]
    next_T: torch.Tensor


@pytest.fixture(scope="session")
def demo_states(smollm2: Path) -> DemoStates:
    """Over two windows of 128 tokens, at 8, 6 and 4 bits (round to nearest, groups of 64)."""
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    text = "\n".join(document.text or "" for document in shipped_documents("evaluation")[:40])
    tokens = torch.tensor(tokenizer(text)["input_ids"][: 2 * 128 + 1])
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.bfloat16).eval()
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    }
    original = {name: module.weight.data for name, module in linears.items()}

    def states() -> torch.Tensor:
        with torch.inference_mode():
            return model.model(tokens[:-1].view(2, 128)).last_hidden_state.flatten(0, 1).clone()

    reference_TD = states()
    candidates = {}
    for bits in (8, 6, 4):
        for name, module in linears.items():
            module.weight.data = quantize(original[name], bits=bits, group_size=64, symmetric=False)
        candidates[bits] = states()
    return DemoStates(reference_TD, candidates, tokens[1:])
