"""A sampler on transformers: real weights and real draws, without an engine to start."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM


class TransformersSampler:
    """`workers.text.sampler.Sampler` by plain ancestral sampling, float32, one prompt after another."""

    def __init__(self, checkpoint: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
        self.calls: list[tuple[list[list[int]], int, int, float]] = []

    @torch.inference_mode()
    def sample(self, prompts: list[list[int]], max_tokens: int, seed: int, temperature: float) -> list[list[int]]:
        self.calls.append((prompts, max_tokens, seed, temperature))
        generator = torch.Generator().manual_seed(seed)
        ended = self.model.config.eos_token_id
        drawn = []
        for prompt in prompts:
            sampled: list[int] = []
            cache = None
            following = torch.tensor([prompt])
            while len(sampled) < max_tokens and sampled[-1:] != [ended]:
                output = self.model(following, past_key_values=cache, use_cache=True)
                cache = output.past_key_values
                probabilities = torch.softmax(output.logits[0, -1] / temperature, dim=-1)
                sampled.append(int(torch.multinomial(probabilities, 1, generator=generator)))
                following = torch.tensor([sampled[-1:]])
            drawn.append(sampled)
        return drawn
