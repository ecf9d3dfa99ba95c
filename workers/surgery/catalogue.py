"""Which code does which type of step, found by name so that nothing heavy is imported before it is needed.

A *streamed* step changes one weight at a time and needs nothing else (`workers.surgery.steps.Runner`). A *whole* step
is given the checkpoint as a whole (`workers.surgery.shop.WholeStep`): it may run the model block by block, change
shapes and configuration, or pack. Mitigations stand in `workers.mitigation` and are named here, never imported.
"""

from importlib import import_module
from typing import Any

STREAMED: dict[str, str] = {
    "quantize.rtn": "workers.surgery.steps:RtnRunner",
    "prune.magnitude": "workers.surgery.steps:MagnitudeRunner",
    "quantize.fp8": "workers.surgery.quantize_fp8:Fp8Runner",
    "quantize.nf4": "workers.surgery.quantize_nf4:Nf4Runner",
}
WHOLE: dict[str, str] = {
    "quantize.rtn packed": "workers.surgery.quantize_rtn:RtnPacked",
    "quantize.fp8 packed": "workers.surgery.quantize_fp8:Fp8Packed",
    "quantize.fp8 dynamic": "workers.surgery.quantize_fp8:Fp8Simulated",
    "quantize.fp8 static": "workers.surgery.quantize_fp8:Fp8Simulated",
    "quantize.gptq": "workers.surgery.quantize_gptq:Gptq",
    "quantize.awq": "workers.surgery.quantize_awq:Awq",
    "quantize.smoothquant": "workers.surgery.quantize_smoothquant:Smoothquant",
    "prune.magnitude owl": "workers.surgery.prune_magnitude_owl:OwlMagnitude",
    "prune.wanda": "workers.surgery.prune_wanda:Wanda",
    "prune.sparsegpt": "workers.surgery.prune_sparsegpt:SparseGpt",
    "prune.ria": "workers.surgery.prune_ria:Ria",
    "prune.gradient": "workers.mitigation.gradient_pruning.step:GradientPruning",
    "prune.layers": "workers.surgery.prune_layers:DropLayers",
    "prune.heads": "workers.surgery.prune_heads:DropHeads",
    "prune.channels": "workers.surgery.prune_channels:DropChannels",
    "quantize.activations": "workers.surgery.quantize_activations:ActivationsStep",
    "quantize.kv_cache": "workers.surgery.quantize_kv_cache:KvCacheStep",
    "norm.scale": "workers.surgery.norm:ScaleStep",
    "norm.epsilon": "workers.surgery.norm:EpsilonStep",
    "norm.drop": "workers.surgery.norm:DropStep",
    "norm.tweak": "workers.surgery.norm_tweak:TweakStep",
    "decode.temperature": "workers.surgery.decode:TemperatureStep",
    "adapter.lora": "workers.surgery.merge:Lora",
    "merge.linear": "workers.surgery.merge:Linear",
    "extend.duplicate": "workers.surgery.extend:Duplicate",
    "extend.identity": "workers.surgery.extend:Identity",
    "extend.interpolate": "workers.surgery.extend:Interpolate",
    "extend.width": "workers.surgery.extend:Width",
    "moe.topk": "workers.surgery.moe:TopK",
    "moe.router": "workers.surgery.moe:Router",
    "context.linear": "workers.surgery.context:Scaled",
    "context.ntk": "workers.surgery.context:Scaled",
    "context.yarn": "workers.surgery.context:Scaled",
    "lowrank.svd": "workers.surgery.lowrank:PlainSvd",
    "lowrank.asvd": "workers.surgery.lowrank:Asvd",
    "lowrank.svdllm": "workers.surgery.lowrank:SvdLlm",
    "quantize.dynamic": "workers.mitigation.dynamic_scaling.step:DynamicScaling",
    "repair.lowrank": "workers.mitigation.repair.step:RepairStep",
}


def name_of(step: object) -> str:
    """What a step goes by here: its type; a streamed type's packed form, or one with OWL's shares, or with activations
    that the engine rounds, is a whole step of its own."""
    kind = str(getattr(step, "type", type(step).__name__))
    variants = (f"{kind} {getattr(step, field, None)}" for field in ("form", "allocation", "activations"))
    return next((variant for variant in variants if variant in WHOLE), kind)


def is_streamed(kind: str) -> bool:
    """Whether a type is a streamed step. Raises TypeError for one that nothing does."""
    if kind in STREAMED:
        return True
    if kind in WHOLE:
        return False
    raise TypeError(f"no surgery for {kind!r}")


def load(kind: str) -> Any:
    """The class that does a type of step; it is called with the step. Raises TypeError for one that nothing does."""
    name = STREAMED.get(kind) or WHOLE.get(kind)
    if name is None:
        raise TypeError(f"no surgery for {kind!r}")
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)
