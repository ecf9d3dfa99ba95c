"""One example of each type of step, which any model of `tests.support.tiny` takes."""

from typing import Any

from app.recipes.recipe import STEPS

_OWN: dict[str, dict[str, Any]] = {
    "quantize.activations": {"bits": 8},
    "quantize.kv_cache": {"k_bits": 4},
    "prune.layers": {"count": 1},
    "prune.heads": {"count": 2},
    "prune.channels": {"ratio": 0.25},
    **{f"lowrank.{name}": {"ratio": 0.3} for name in ("svd", "asvd", "svdllm")},
    "extend.duplicate": {"layers": [0, 1]},
    "extend.interpolate": {"layers": [0]},
    "extend.width": {"channels": 2},
    "moe.topk": {"experts": 1},
    "moe.router": {"bits": 4},
    **{f"context.{name}": {"factor": 2} for name in ("linear", "ntk", "yarn")},
    "adapter.lora": {"adapter": "lora"},
    "merge.linear": {"other": "other"},
    "norm.scale": {"factor": 1.1},
    "norm.epsilon": {"epsilon": 0.01},
    "decode.temperature": {"temperature": 1.5},
    "repair.lowrank": {"rank": 4},
}
_GRADED: dict[str | None, dict[str, Any]] = {"bits": {"bits": 4, "group_size": 32}, "sparsity": {"sparsity": 0.5}}


def example(kind: str) -> dict[str, Any]:
    """The fields of a step of a type."""
    return {"type": kind} | _OWN.get(kind, _GRADED.get(STEPS[kind].graded_by, {}))
