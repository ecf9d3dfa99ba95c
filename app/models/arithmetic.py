"""What a configuration says of arithmetic that the engine would refuse hours later: activations and rotary positions.

vLLM 0.32 computes some functions alone for each architecture, whatever transformers can, and fails as it loads a model
that names another.
"""

from collections.abc import Iterator
from typing import Any, Final

from app.contracts.errors import ErrorCode, HemostatError
from app.models.shapes import LAYOUTS

# By architecture: the field of the activation, and what vLLM computes; the first one is the class's default.
_SILU: Final = ("hidden_act", ("silu",))
_GELU: Final = ("gelu_pytorch_tanh", "gelu")
ACTIVATIONS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "LlamaForCausalLM": _SILU,
    "MistralForCausalLM": _SILU,
    "Qwen2ForCausalLM": _SILU,
    "Qwen3ForCausalLM": _SILU,
    "GraniteForCausalLM": _SILU,
    "Phi3ForCausalLM": _SILU,
    "MixtralForCausalLM": _SILU,
    "Qwen2MoeForCausalLM": _SILU,
    "Qwen3MoeForCausalLM": _SILU,
    "GemmaForCausalLM": ("hidden_activation", _GELU),
    "Gemma2ForCausalLM": ("hidden_activation", _GELU[:1]),
    "Gemma3ForCausalLM": ("hidden_activation", _GELU),
}
# What both engines know; `su` is longrope's older name.
ROPES: Final = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")
_OLDER: Final = {"su": "longrope"}


def check_arithmetic(architecture: str, config: dict[str, Any]) -> None:
    """Raises CHECKPOINT_UNSUPPORTED for an activation or rotary type that vLLM does not compute for a known
    architecture."""
    if architecture not in LAYOUTS:
        return
    field, known = ACTIVATIONS[architecture]
    told = config.get(field)
    if told is not None and told not in known:
        raise _unsupported(f"{field} is {told!r}, and vLLM computes {' and '.join(known)} alone for {architecture}")
    for kind in _rope_types(config):
        if _OLDER.get(kind, kind) not in ROPES:
            raise _unsupported(f"its rotary positions are of the type {kind!r}; known are {', '.join(ROPES)}")


def _rope_types(config: dict[str, Any]) -> Iterator[str]:
    """The types that the configuration names, in the form of transformers 5 or the older one; one a kind of layer where
    these differ."""
    for name in ("rope_parameters", "rope_scaling"):
        found = config.get(name)
        if not isinstance(found, dict):
            continue
        inner = [one for one in found.values() if isinstance(one, dict)]
        for rope in inner or [found]:
            kind = rope.get("rope_type") or rope.get("type")
            if kind is not None:
                yield str(kind)


def _unsupported(what: str) -> HemostatError:
    return HemostatError(
        ErrorCode.CHECKPOINT_UNSUPPORTED,
        f"config.json: {what}",
        hint="fetch the config.json that belongs to the weights; Hemostat does not support this setting",
    )
