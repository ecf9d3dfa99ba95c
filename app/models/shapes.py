"""Which tensors, of which shapes, a configuration calls for, for the architectures whose layout is known."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.contracts.errors import ErrorCode, HemostatError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """How one architecture differs from Llama. Defaults are those of its configuration class in transformers."""

    tied: bool = False
    head_dim: int | None = None
    kv_heads: int | None = None
    qkv_bias: bool | str = "attention_bias"  # a text names the field that says so
    o_bias: bool | str = "attention_bias"
    mlp_bias: bool | str = "mlp_bias"
    qk_norm: bool = False
    feedforward_norms: bool = False
    fused: bool = False
    mixture: str | None = None


LAYOUTS: dict[str, Layout] = {
    "LlamaForCausalLM": Layout(),
    "MistralForCausalLM": Layout(kv_heads=8, qkv_bias=False, o_bias=False, mlp_bias=False),
    "Qwen2ForCausalLM": Layout(kv_heads=32, qkv_bias=True, o_bias=False, mlp_bias=False),
    "Qwen3ForCausalLM": Layout(kv_heads=32, head_dim=128, mlp_bias=False, qk_norm=True),
    "GemmaForCausalLM": Layout(tied=True, kv_heads=16, head_dim=256, mlp_bias=False),
    "Gemma2ForCausalLM": Layout(tied=True, kv_heads=4, head_dim=256, mlp_bias=False, feedforward_norms=True),
    "Gemma3ForCausalLM": Layout(
        tied=True, kv_heads=4, head_dim=256, mlp_bias=False, feedforward_norms=True, qk_norm=True
    ),
    "GraniteForCausalLM": Layout(),
    "Phi3ForCausalLM": Layout(qkv_bias=False, o_bias=False, mlp_bias=False, fused=True),
    "MixtralForCausalLM": Layout(kv_heads=8, qkv_bias=False, o_bias=False, mixture="mixtral"),
    "Qwen2MoeForCausalLM": Layout(kv_heads=16, qkv_bias="qkv_bias", o_bias=False, mlp_bias=False, mixture="qwen2_moe"),
    "Qwen3MoeForCausalLM": Layout(kv_heads=4, mlp_bias=False, qk_norm=True, mixture="qwen3_moe"),
}
LARGEST = 2**31 - 1
# Fields whose class default is not "absent means false".
_FIELD_DEFAULTS = {"qkv_bias": True, "attention_bias": False, "mlp_bias": False}


def dimension(config: dict[str, Any], key: str, default: int | None = None) -> int:
    """A number from 1 to `LARGEST` of config.json; raises `HemostatError(CHECKPOINT_CORRUPT)` if it is none."""
    value = config.get(key)
    if value is None:
        value = default
    if type(value) is not int or not 1 <= value <= LARGEST:
        raise HemostatError(
            ErrorCode.CHECKPOINT_CORRUPT,
            f"config.json: {key} is {repr(value)[:40]}, expected a whole number from 1 to {LARGEST:,}",
            hint="fetch the configuration again, or correct the field",
        )
    return value


def is_tied(architecture: str, config: dict[str, Any], *, has_head: bool) -> bool:
    """Whether head and embedding are one matrix: as the configuration says, else as the architecture's default is."""
    stated = config.get("tie_word_embeddings")
    if stated is not None:
        return bool(stated)
    layout = LAYOUTS.get(architecture)
    return layout.tied if layout else not has_head


def expected_tensors(architecture: str, config: dict[str, Any]) -> dict[str, Shape] | None:
    """Name → shape of every tensor but a tied head, as transformers saves them; None for an unknown architecture."""
    return dict(each_expected(architecture, config)) if architecture in LAYOUTS else None


def each_expected(architecture: str, config: dict[str, Any]) -> Iterator[tuple[str, Shape]]:
    """(name, shape) of what `expected_tensors` holds, for an architecture of `LAYOUTS`. As many as the configuration
    says: anyone who does not know that they are there stops at the first one that is not."""
    layout = LAYOUTS[architecture]
    hidden, vocabulary = dimension(config, "hidden_size"), dimension(config, "vocab_size")
    yield "model.embed_tokens.weight", (vocabulary, hidden)
    yield "model.norm.weight", (hidden,)
    if not is_tied(architecture, config, has_head=True):
        yield "lm_head.weight", (vocabulary, hidden)
    for layer in range(dimension(config, "num_hidden_layers")):
        prefix = f"model.layers.{layer}."
        for name, shape in _norms(layout, hidden):
            yield prefix + name, shape
        for name, shape in _attention(layout, config, hidden):
            yield prefix + "self_attn." + name, shape
        for name, shape in _feedforward(layout, config, hidden, layer):
            yield prefix + name, shape


def _flag(config: dict[str, Any], flag: bool | str) -> bool:
    return bool(config.get(flag, _FIELD_DEFAULTS[flag])) if isinstance(flag, str) else flag


def _norms(layout: Layout, hidden: int) -> Iterator[tuple[str, Shape]]:
    yield "input_layernorm.weight", (hidden,)
    yield "post_attention_layernorm.weight", (hidden,)
    if layout.feedforward_norms:
        yield "pre_feedforward_layernorm.weight", (hidden,)
        yield "post_feedforward_layernorm.weight", (hidden,)


def _linear(name: str, out: int, into: int, bias: bool) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (out, into)
    if bias:
        yield f"{name}.bias", (out,)


def _attention(layout: Layout, config: dict[str, Any], hidden: int) -> Iterator[tuple[str, Shape]]:
    heads = dimension(config, "num_attention_heads")
    kv_heads = dimension(config, "num_key_value_heads", layout.kv_heads or heads)
    head_dim = dimension(config, "head_dim", layout.head_dim or max(hidden // heads, 1))
    bias = _flag(config, layout.qkv_bias)
    if layout.fused:
        yield from _linear("qkv_proj", (heads + 2 * kv_heads) * head_dim, hidden, bias)
    else:
        yield from _linear("q_proj", heads * head_dim, hidden, bias)
        yield from _linear("k_proj", kv_heads * head_dim, hidden, bias)
        yield from _linear("v_proj", kv_heads * head_dim, hidden, bias)
    yield from _linear("o_proj", hidden, heads * head_dim, _flag(config, layout.o_bias))
    if layout.qk_norm:
        yield "q_norm.weight", (head_dim,)
        yield "k_norm.weight", (head_dim,)


def _gated(prefix: str, hidden: int, inner: int, bias: bool = False) -> Iterator[tuple[str, Shape]]:
    yield from _linear(f"{prefix}.gate_proj", inner, hidden, bias)
    yield from _linear(f"{prefix}.up_proj", inner, hidden, bias)
    yield from _linear(f"{prefix}.down_proj", hidden, inner, bias)


def _feedforward(layout: Layout, config: dict[str, Any], hidden: int, layer: int) -> Iterator[tuple[str, Shape]]:
    if layout.mixture == "mixtral":
        inner, experts = dimension(config, "intermediate_size"), dimension(config, "num_local_experts", 8)
        yield "block_sparse_moe.gate.weight", (experts, hidden)
        for expert in range(experts):
            prefix = f"block_sparse_moe.experts.{expert}"
            yield f"{prefix}.w1.weight", (inner, hidden)
            yield f"{prefix}.w2.weight", (hidden, inner)
            yield f"{prefix}.w3.weight", (inner, hidden)
    elif layout.mixture and _is_sparse(config, layer):
        # transformers 5 writes Qwen3's number of experts under Mixtral's name
        experts = dimension(config, "num_experts" if "num_experts" in config else "num_local_experts")
        inner = dimension(config, "moe_intermediate_size")
        yield "mlp.gate.weight", (experts, hidden)
        for expert in range(experts):
            yield from _gated(f"mlp.experts.{expert}", hidden, inner)
        if layout.mixture == "qwen2_moe":
            yield from _gated("mlp.shared_expert", hidden, dimension(config, "shared_expert_intermediate_size"))
            yield "mlp.shared_expert_gate.weight", (1, hidden)
    elif layout.fused:
        inner = dimension(config, "intermediate_size")
        yield "mlp.gate_up_proj.weight", (2 * inner, hidden)
        yield "mlp.down_proj.weight", (hidden, inner)
    else:
        yield from _gated("mlp", hidden, dimension(config, "intermediate_size"), _flag(config, layout.mlp_bias))


def _is_sparse(config: dict[str, Any], layer: int) -> bool:
    """Whether a Qwen mixture has experts in that layer."""
    dense = config.get("mlp_only_layers") or []
    return layer not in dense and (layer + 1) % dimension(config, "decoder_sparse_step", 1) == 0
