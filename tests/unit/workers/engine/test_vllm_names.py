"""What we use of vLLM, against the installed one: an upgrade fails here first."""

import inspect
from collections.abc import Iterator
from functools import reduce
from typing import Any

import pytest

from workers.engine import environment, vllm_names
from workers.engine.device import distribution
from workers.engine.isolation import quiet_vllm
from workers.engine.serving.arguments import server_environment

# Name -> {path from it: parameters that we give it by name, or positions that we fill; None: it is only read}.
USED: dict[str, dict[str, str | int | None]] = {
    "Attention": {"forward": "query key value", "register_forward_pre_hook": "hook with_kwargs"},
    "CPUModelRunner": {"_sample": 3, "get_model": 1},
    "EngineArgs": {
        "": "model runner skip_tokenizer_init load_format config_format use_tqdm_on_load model_impl generation_config "
        "dtype max_model_len max_num_batched_tokens max_num_seqs enable_chunked_prefill enable_prefix_caching "
        "kv_cache_memory_bytes enforce_eager async_scheduling disable_log_stats seed convert pooler_config "
        "hf_overrides max_logprobs logits_processors ir_op_priority gpu_memory_utilization kv_cache_dtype "
        "worker_extension_cls tensor_parallel_size pipeline_parallel_size distributed_executor_backend "
        "speculative_config disable_hybrid_kv_cache_manager",
        "create_engine_config": 1,
    },
    "GPUModelRunner": {"sample_tokens": "grammar_output"},
    "LLMEngine": {
        "from_vllm_config": "vllm_config disable_log_stats",
        "add_request": 4,
        "abort_request": "request_ids internal",
        "has_unfinished_requests": 1,
        "step": 1,
        "collective_rpc": "method args",
    },
    "LazyModel": {"load_model_cls": 1, "inspect_model_cls": 1},
    "LinearBase": {"": "output_size params_dtype tp_size"},
    "LogitsProcessor": {
        "__init__": "vllm_config device is_pin_memory",
        "validate_params": 1,
        "is_argmax_invariant": 1,
        "update_state": 2,
        "apply": 2,
    },
    "ModelInfo": {"from_model_cls": 1},
    "ModelRegistry": {"models": None, "get_supported_archs": 0, "register_model": 2},
    "PPMissingLayer": {"": None},
    "PoolerConfig": {"": "task use_activation"},
    "PoolingParams": {"": "task use_activation"},
    "SamplerOutput": {"": "sampled_token_ids logprobs_tensors"},
    "SamplingParams": {
        "": "temperature max_tokens seed ignore_eos stop_token_ids detokenize prompt_logprobs flat_logprobs extra_args "
        "skip_reading_prefix_cache",
    },
    "Scheduler": {"update_from_output": "scheduler_output model_runner_output"},
    "UniProcExecutor": {
        "execute_model": "scheduler_output non_block",
        "sample_tokens": "grammar_output non_block",
    },
    "UnquantizedFusedMoEMethod": {"": None},
    "all_gather": {"": 1},
    "compile_factors": {"": 0},
    "config_utils": {"re.match": 2},
    "current_platform": {"register_triton_kernel_overrides": 0, "get_device_total_memory": None},
    "custom_ops": {
        "create_onednn_mm": 2,
        "create_onednn_scaled_mm": "weight weight_scales",
        "onednn_mm": 3,
        "_supports_onednn": None,
    },
    "dump_input": {"logger.name": None},
    "engine_core": {"cleanup_dist_env_and_memory": None, "EngineCore.preprocess_add_request": "self request"},
    "get_cgroup_memory_limit": {"": 0},
    "get_cgroup_memory_usage": {"": 0},
    "get_forward_context": {"": 0},
    "get_pp_group": {"": 0},
    "get_tp_group": {"": 0},
    "has_flashinfer": {"": 0},
    "ir": {"ops.fused_add_rms_norm.impls": None, "ops.fused_add_rms_norm.register_impl": "provider supports_args"},
    "layer_utils": {"dispatch_cpu_unquantized_gemm": "layer remove_weight"},
    "multiproc_executor": {"logger.name": None},
    "parallel_state": {
        "get_world_group": 0,
        "model_parallel_is_initialized": 0,
        "_EP": None,
        "destroy_model_parallel": 0,
        "destroy_distributed_environment": 0,
    },
    "sampler": {"batched_count_greater_than": 2},
    "serve": {"": 0},
    "tokens_input": {"": "prompt_token_ids cache_salt"},
    "workspace": {"_manager": None},
}


@pytest.fixture(scope="module", autouse=True)
def imported() -> Iterator[None]:
    environment.prepare()
    with quiet_vllm():
        yield


def fault(name: str, path: str, wanted: str | int | None) -> str:
    """What is not as we use it; empty if all is."""
    try:
        found: Any = reduce(getattr, filter(None, path.split(".")), getattr(vllm_names, name))
    except (ImportError, AttributeError) as error:
        return f"is not there ({error})"
    if wanted is None:
        return ""
    if not callable(found):
        return "cannot be called"
    taken = inspect.signature(found).parameters
    if any(one.kind is one.VAR_KEYWORD for one in taken.values()):
        return ""
    if isinstance(wanted, str):
        lacking = sorted(set(wanted.split()) - set(taken))
        return f"does not take {', '.join(lacking)}" if lacking else ""
    required = sum(one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD for one in taken.values())
    return "" if required <= wanted <= len(taken) else f"takes {inspect.signature(found)}, we give {wanted}"


def test_every_name_has_what_we_use_of_it() -> None:
    assert set(USED) == set(vllm_names.NAMES)
    faults = [
        f"{vllm_names.NAMES[name]} {path} {what}"
        for name, paths in USED.items()
        for path, wanted in paths.items()
        if (what := fault(name, path, wanted))
    ]
    assert not faults, f"{' '.join(distribution())} differs from workers/engine/vllm_names.py:\n" + "\n".join(faults)


def test_vllm_knows_every_environment_variable_that_we_set() -> None:
    from vllm import envs

    ours = {*environment.ENGINE, *server_environment(None, {}, device="cpu"), environment.BATCH_INVARIANT}
    assert not {name for name in ours if name.startswith("VLLM_")} - set(envs.environment_variables)
