"""A small mixture of experts for the bench: the demo model is dense, and no mixture is small enough to be fetched.

A Mixtral of three layers, four experts, two of them a token, trained on the bench's calibration text until its routers
choose and its loss says that it learned something. Its own tokenizer is a byte-level one of 320 tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from tests.support.tiny import make_checkpoint, make_tokenizer

STEPS, WINDOWS, LENGTH = 300, 8, 128


def make_mixture(folder: Path, texts: Sequence[str], *, position: int) -> Path:
    """The checkpoint, in `folder`, of a context of `position` tokens; made once. Takes a minute on one core."""
    if (folder / "model.safetensors").is_file():
        return folder
    made = make_checkpoint(folder, "mixtral", scale=1.0, max_position_embeddings=position)
    model: Any = AutoModelForCausalLM.from_pretrained(made, dtype=torch.float32)
    (folder / "model.safetensors").unlink()  # it stands there again once it is trained
    tokenizer = make_tokenizer()
    ids = torch.tensor([token for text in texts for token in tokenizer(text)["input_ids"]])
    draw = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        starts = torch.randint(0, len(ids) - LENGTH, (WINDOWS,), generator=draw)
        tokens_NL = torch.stack([ids[start : start + LENGTH] for start in starts.tolist()])
        model(tokens_NL, labels=tokens_NL).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder
