"""A Llama whose hidden states are another one's, turned into a larger space: another width, and the same function."""

import json
import math
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

_READ = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}
_WRITE = ("self_attn.o_proj", "mlp.down_proj")


def widened(folder: Path, to: Path, *, width: int, seed: int = 0) -> Path:
    """The checkpoint in `to`, in float32: c = h Q with Q (D, width) of orthonormal rows. Norms lose their weights to
    what reads them; theirs are √(D/width), since as much is spread over more channels."""
    config = json.loads((folder / "config.json").read_text())
    layers, size = config["num_hidden_layers"], config["hidden_size"]
    generator = torch.Generator().manual_seed(seed)
    turn_DW = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))[0][:size]
    old = {name: tensor.double() for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
    norm_W = torch.full((width,), math.sqrt(size / width), dtype=torch.float64)
    head_VD = old.get("lm_head.weight", old["model.embed_tokens.weight"])
    new = {
        "model.embed_tokens.weight": old["model.embed_tokens.weight"] @ turn_DW,
        "lm_head.weight": (head_VD * old["model.norm.weight"]) @ turn_DW,
        "model.norm.weight": norm_W,
    }
    for prefix in (f"model.layers.{layer}." for layer in range(layers)):
        for norm, readers in _READ.items():
            new[f"{prefix}{norm}.weight"] = norm_W
            for name in readers:
                new[f"{prefix}{name}.weight"] = (
                    old[f"{prefix}{name}.weight"] * old[f"{prefix}{norm}.weight"]
                ) @ turn_DW
        for name in _WRITE:
            new[f"{prefix}{name}.weight"] = turn_DW.T @ old[f"{prefix}{name}.weight"]
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.safetensors*", "*.index.json"))
    save_file(
        {name: tensor.float().contiguous() for name, tensor in new.items()},
        to / "model.safetensors",
        metadata={"format": "pt"},
    )
    config |= {
        "hidden_size": width,
        "tie_word_embeddings": False,
        "rms_norm_eps": config["rms_norm_eps"] * size / width,
        "dtype": "float32",
        "torch_dtype": "float32",
    }
    (to / "config.json").write_text(json.dumps(config))
    return to
