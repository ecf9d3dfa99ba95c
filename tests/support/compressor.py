"""What llm-compressor makes of a plain checkpoint: its own methods as oracles, on the text that ours are given."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM


def oneshot(folder: Path, tokens_NL: torch.Tensor, recipe: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """(the model after llm-compressor's recipe, its tensors before), in float32; no layer sees the rounding
    of those before."""
    from datasets import Dataset
    from llmcompressor import oneshot as run
    from llmcompressor.pipelines.cache import IntermediatesCache

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    windows, length = tokens_NL.shape
    given = {"input_ids": tokens_NL.tolist(), "attention_mask": torch.ones_like(tokens_NL).tolist()}
    with pytest.MonkeyPatch.context() as patch:
        if not torch.accelerator.is_available():  # AWQ pins its cache for copies to one, and ends where there is none
            patch.setattr(IntermediatesCache, "pin_memory", lambda *_: None)
        run(
            model=model,
            dataset=Dataset.from_dict(given),
            recipe=recipe,
            pipeline="sequential",
            propagate_error=False,
            num_calibration_samples=windows,
            max_seq_length=length,
            shuffle_calibration_samples=False,
            log_dir=None,
        )
    return model, before


@torch.no_grad()
def inputs(folder: Path, tokens_NL: torch.Tensor) -> dict[str, torch.Tensor]:
    """(T, I) what enters each linear layer of the plain checkpoint, in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    seen: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0].flatten(0, -2)}))
    model(tokens_NL)
    return seen
