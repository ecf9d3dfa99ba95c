"""A tiny Llama as a Q4_1 GGUF file, written with the format's own library from a tiny checkpoint."""

import json
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from safetensors.torch import load_file

_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
Array = npt.NDArray[np.float32]


def write_gguf(
    checkpoint: Path, file: Path, *, more: dict[str, Array] | None = None, left_out: tuple[str, ...] = ()
) -> dict[str, Array]:
    """Writes the tied tiny llama `checkpoint` to `file`; returns, by the checkpoint's own names, the weights that the
    file stands for: Q4_1 matrices dequantized by the format's library, norms as they are. `more`: tensors beside the
    model's, by the file's names; `left_out`: those of the checkpoint that the file lacks."""
    config = json.loads((checkpoint / "config.json").read_text())
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name("tiny")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    _add_tokenizer(writer, checkpoint)
    expected = {}
    for name, array in (more or {}).items():
        writer.add_tensor(name, array)
    for name, tensor in load_file(checkpoint / "model.safetensors").items():
        if name in left_out:
            continue
        weight = tensor.float().numpy()
        if weight.ndim == 1:
            writer.add_tensor(_gguf_name(name), weight)
            expected[name] = weight
            continue
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
        stored = _interleaved(weight, config[heads]) if heads else weight
        packed = gguf.quants.quantize(stored, gguf.GGMLQuantizationType.Q4_1)
        writer.add_tensor(_gguf_name(name), packed, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
        meant = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q4_1)
        expected[name] = _halves(meant, config[heads]) if heads else meant
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


def _gguf_name(name: str) -> str:
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, *module, _ = name.split(".")
    return f"blk.{layer}.{_NAMES['.'.join(module)]}.weight"


def _interleaved(weight: Array, heads: int) -> Array:
    """Rotary halves to pairs: the order in which llama.cpp keeps the rows of q and k."""
    rows = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return np.ascontiguousarray(rows.swapaxes(1, 2).reshape(weight.shape))


def _halves(weight: Array, heads: int) -> Array:
    """The way back."""
    rows = weight.reshape(heads, weight.shape[0] // heads // 2, 2, weight.shape[1])
    return np.ascontiguousarray(rows.swapaxes(1, 2).reshape(weight.shape))


def _add_tokenizer(writer: gguf.GGUFWriter, checkpoint: Path) -> None:
    model = json.loads((checkpoint / "tokenizer.json").read_text())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if token in ("<s>", "</s>") else gguf.TokenType.NORMAL for token in tokens]
    )
    writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")
