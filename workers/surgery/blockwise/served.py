"""transformers' configuration of a checkpoint, with what vLLM makes of the same config.json if the two differ.

What
is fitted and looked into here is what is measured and served there."""

from typing import Any

from app.models.checkpoint import CheckpointInfo


def as_served(config: Any, info: CheckpointInfo) -> Any:
    """`config`, changed in place.

    Gemma's first configurations name the exact GELU in `hidden_act`, which transformers computes; vLLM reads
    `hidden_activation`, and without it takes the approximation that the models were trained with.
    """
    if info.architecture == "GemmaForCausalLM":
        config.hidden_act = info.config.get("hidden_activation") or "gelu_pytorch_tanh"
    return config


def is_capped(config: Any) -> bool:
    """Whether scores of attention are capped: as the configuration has it with the defaults of its class, which caps
    Gemma-2's where config.json has no word of it."""
    return bool(getattr(config, "attn_logit_softcapping", None))
