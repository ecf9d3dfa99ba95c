"""Every name of vLLM that we use, imported when it is first read. Nothing else of ours imports vLLM.

Few of these names are a documented interface of vLLM. An upgrade starts with `make try-next`: it compares each of them,
and the parameters and attributes that we use, with the newest release.
"""

from pkgutil import resolve_name
from typing import Any, Final

# Our name -> module, or module:attribute. A module is listed where we replace what it holds.
NAMES: Final = {
    "Attention": "vllm.model_executor.layers.attention:Attention",
    "CPUModelRunner": "vllm.v1.worker.cpu_model_runner:CPUModelRunner",
    "EngineArgs": "vllm.engine.arg_utils:EngineArgs",
    "GPUModelRunner": "vllm.v1.worker.gpu_model_runner:GPUModelRunner",
    "LLMEngine": "vllm.v1.engine.llm_engine:LLMEngine",
    "LazyModel": "vllm.model_executor.models.registry:_LazyRegisteredModel",
    "LinearBase": "vllm.model_executor.layers.linear:LinearBase",
    "LogitsProcessor": "vllm.v1.sample.logits_processor:LogitsProcessor",
    "ModelInfo": "vllm.model_executor.models.registry:_ModelInfo",
    "ModelRegistry": "vllm.model_executor.models.registry:ModelRegistry",
    "PPMissingLayer": "vllm.model_executor.models.utils:PPMissingLayer",
    "PoolerConfig": "vllm.config:PoolerConfig",
    "PoolingParams": "vllm:PoolingParams",
    "SamplerOutput": "vllm.v1.outputs:SamplerOutput",
    "SamplingParams": "vllm:SamplingParams",
    "Scheduler": "vllm.v1.core.sched.scheduler:Scheduler",
    "UniProcExecutor": "vllm.v1.executor.uniproc_executor:UniProcExecutor",
    "UnquantizedFusedMoEMethod": (
        "vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method:UnquantizedFusedMoEMethod"
    ),
    "all_gather": "vllm.distributed:tensor_model_parallel_all_gather",
    "compile_factors": "vllm.envs:compile_factors",
    "config_utils": "vllm.model_executor.layers.quantization.utils.config_utils",
    "current_platform": "vllm.platforms:current_platform",
    "custom_ops": "vllm._custom_ops",
    "dump_input": "vllm.logging_utils.dump_input",
    "engine_core": "vllm.v1.engine.core",
    "get_cgroup_memory_limit": "vllm.utils.cpu_resource_utils:get_cgroup_memory_limit",
    "get_cgroup_memory_usage": "vllm.utils.cpu_resource_utils:get_cgroup_memory_usage",
    "get_forward_context": "vllm.forward_context:get_forward_context",
    "get_pp_group": "vllm.distributed:get_pp_group",
    "get_tp_group": "vllm.distributed:get_tp_group",
    "has_flashinfer": "vllm.utils.flashinfer:has_flashinfer",
    "ir": "vllm.ir",
    "layer_utils": "vllm.model_executor.layers.utils",
    "multiproc_executor": "vllm.v1.executor.multiproc_executor",
    "parallel_state": "vllm.distributed.parallel_state",
    "sampler": "vllm.v1.sample.sampler",
    "serve": "vllm.entrypoints.launchers.api_server.entry:main",
    "tokens_input": "vllm.inputs.engine:tokens_input",
    "workspace": "vllm.v1.worker.workspace",
}


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"workers.engine.vllm_names has no {name}")
    return resolve_name(NAMES[name])
