"""Which of transformers' attentions the walk through blocks uses: the fused one leaves soft-capping out."""

import json
from pathlib import Path


def attention_of(folder: Path) -> str:
    """`eager` or `sdpa`, as `attn_implementation` takes it."""
    capped = json.loads((folder / "config.json").read_text()).get("attn_logit_softcapping")
    return "eager" if capped else "sdpa"
