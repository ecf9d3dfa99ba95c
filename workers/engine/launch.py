"""Starting and stopping a vLLM engine inside this process, and leaving the process as it was.

vLLM is made for a process of its own: starting it seeds every random generator, replaces functions of torch, may leave
another default dtype behind when it fails, and stopping one engine destroys the process groups that another one needs.
Here that is undone, so that several engines, tests and our own computation can share a process.
"""

import contextlib
import gc
import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from app.contracts.errors import ErrorCode, HemostatError
from app.models.nearest import nearest
from workers.engine import environment

Between = Callable[[], None]


class EngineFault(Exception):  # noqa: N818 - its cause is the error
    """vLLM failed at work; what happened is the cause. The engine's state is unknown."""


def never() -> None:
    """Nobody asks to stop."""


@dataclass(frozen=True)
class EngineOptions:
    """One engine. Lengths and `step_tokens` in tokens; `max_sequences` is how many prompts one step may hold."""

    checkpoint: Path
    architecture: str
    runner: Literal["pooling", "generate"]
    device: str
    dtype: str
    max_model_len: int
    step_tokens: int
    max_sequences: int
    kv_cache_bytes: int
    compiled: bool = False


@cache
def load_vllm() -> None:
    """Imports vLLM and puts in what the installed version lacks; six seconds the first time in a process."""
    environment.prepare()
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)  # says that a CPU has no Triton
    with quiet_vllm():
        import vllm._custom_ops
        import vllm.v1.engine.llm_engine
    _keep_scales_alive(vllm._custom_ops)
    _freeze()


def start(options: EngineOptions) -> Any:
    """A running `vllm.v1.engine.llm_engine.LLMEngine` in this process. Raises what vLLM raises; globals are as before.

    Also raises CHECKPOINT_UNSUPPORTED for an architecture that vLLM does not know.
    """
    load_vllm()
    with globals_kept(), quiet_vllm():
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        _register(options.architecture)
        config = EngineArgs(**_arguments(options)).create_engine_config()
        _renew_groups(config)
        engine = LLMEngine.from_vllm_config(config, disable_log_stats=True)
        if options.runner == "pooling":
            _check_pooler(engine)
    return engine


def stop(engine: Any) -> None:
    """Ends an engine and frees its memory. The process groups stay, for the engines that remain and those to come."""
    from vllm.v1.engine import core

    whole = core.cleanup_dist_env_and_memory
    core.cleanup_dist_env_and_memory = _collect
    try:
        engine.engine_core.shutdown()
    finally:
        core.cleanup_dist_env_and_memory = whole


def end_groups() -> None:
    """Destroys vLLM's process groups, once no engine is left."""
    if "vllm.distributed.parallel_state" in sys.modules:
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()


def run(engine: Any, prompts: Sequence[list[int]], params: Sequence[Any], between: Between = never) -> list[Any]:
    """The finished outputs of `prompts`, in order. `between` is called before each step and may raise to stop.

    When it has stopped so, the engine has no request left and is good for more. Raises `EngineFault` where vLLM fails.
    """
    from vllm.inputs.engine import tokens_input

    outputs: list[Any] = [None] * len(prompts)
    waiting: list[str] = []
    with _faults():
        for index, (tokens, one) in enumerate(zip(prompts, params, strict=True)):
            waiting.append(engine.add_request(str(index), tokens_input(tokens), one))
    while engine.has_unfinished_requests():
        try:
            between()
        except BaseException:
            engine.abort_request(waiting, internal=True)
            raise
        with _faults():
            for output in engine.step():
                if output.finished:
                    outputs[int(output.request_id)] = output
    return outputs


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise EngineFault from error


def model_of(engine: Any) -> Any:
    """The model that an engine of this process runs."""
    return engine.model_executor.driver_worker.worker.model_runner.get_model()


def _arguments(options: EngineOptions) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "model": str(options.checkpoint),
        "runner": options.runner,
        "skip_tokenizer_init": True,  # tokens go in and tokens come out
        "load_format": "safetensors",
        "use_tqdm_on_load": False,
        "model_impl": "vllm",
        "generation_config": "vllm",  # no sampling defaults that the checkpoint brings
        "dtype": options.dtype,
        "max_model_len": options.max_model_len,
        "max_num_batched_tokens": max(options.step_tokens, options.max_sequences),
        "max_num_seqs": options.max_sequences,
        "enable_chunked_prefill": True,
        "enable_prefix_caching": False,
        "kv_cache_memory_bytes": options.kv_cache_bytes,
        "enforce_eager": not options.compiled,
        "async_scheduling": False,
        "disable_log_stats": True,
        "seed": 0,
    }
    if options.runner == "pooling":
        from vllm.config import PoolerConfig

        arguments |= {
            "convert": "embed",
            "pooler_config": PoolerConfig(task="token_embed", use_activation=False),
            "hf_overrides": {"head_dtype": "model"},  # a pooling head would be cast to float32 for nothing
        }
    else:
        arguments["max_logprobs"] = -1
    if options.device == "cuda":
        import torch

        free, total = torch.cuda.mem_get_info()
        # Not what is taken (the size of the KV cache is given) but what must be free, or vLLM refuses to start.
        arguments["gpu_memory_utilization"] = min(0.9, 0.95 * free / total)
    return arguments


def _check_pooler(engine: Any) -> None:
    """Raises CHECKPOINT_UNSUPPORTED where a checkpoint brings layers of its own after the final norm."""
    head = model_of(engine).pooler.poolers_by_task["token_embed"].head
    if head.projector is not None:
        stop(engine)
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            "the folder holds a sentence-transformers projection (modules.json), which would change the hidden states",
            hint="leave the language model alone in the folder",
        )


def _register(architecture: str) -> None:
    """Registers the model class itself: vLLM would inspect it in a second process first, which takes ten seconds."""
    from vllm.model_executor.models.registry import ModelRegistry, _LazyRegisteredModel

    entry = ModelRegistry.models.get(architecture)
    if entry is None:
        known = sorted(name for name in ModelRegistry.get_supported_archs() if name.endswith("ForCausalLM"))
        near = nearest(architecture, known)
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            f"vLLM has no architecture {architecture!r}",
            hint=(f"the nearest of its {len(known)} causal language models is {near}" if near else "")
            or f"it has {len(known)} causal language models, such as LlamaForCausalLM",
        )
    if isinstance(entry, _LazyRegisteredModel):
        ModelRegistry.register_model(architecture, entry.load_model_cls())


def _renew_groups(config: Any) -> None:
    """Lets vLLM make its groups anew where a mixture of experts needs one that the engines so far did not.

    Engines look their groups up when they use them, so those that run go on with the new ones.
    """
    from vllm.distributed import parallel_state

    if config.model_config.is_moe and parallel_state.model_parallel_is_initialized() and parallel_state._EP is None:
        parallel_state.destroy_model_parallel()


def _keep_scales_alive(operations: Any) -> None:
    """The W8A8 kernel points at scales that it does not own: after a weight swap, at freed ones. Now it owns them."""
    plain = operations.create_onednn_scaled_mm
    if hasattr(plain, "keeps_scales"):
        return

    def create(weight: Any, weight_scales: Any, *rest: Any, **named: Any) -> Any:
        handler = plain(weight, weight_scales, *rest, **named)
        handler.weight_scales = weight_scales
        return handler

    create.keeps_scales = True  # type: ignore[attr-defined]
    operations.create_onednn_scaled_mm = create


def _collect() -> None:
    """What an engine's end frees, without the process groups."""
    import torch

    _freeze()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _freeze() -> None:
    """Collects garbage, then takes what lives out of the collector's sight: vLLM collects eight times a start, and half
    a million objects of its imports cost a third of a second each time."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def quiet_vllm() -> Iterator[None]:
    """vLLM and what it imports use names that torch and others have deprecated: not ours to mend, nor to fail on."""
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning, PendingDeprecationWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        yield


@contextlib.contextmanager
def globals_kept() -> Iterator[None]:
    """Random states, the default dtype, the thread setter, `LD_PRELOAD` and the exception hook are as before."""
    import numpy as np
    import torch

    python, numpy, host = random.getstate(), np.random.get_state(), torch.get_rng_state()
    dtype, threads, hook = torch.get_default_dtype(), torch.set_num_threads, sys.excepthook
    preload = os.environ.get("LD_PRELOAD")
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(host)
        torch.set_default_dtype(dtype)
        torch.set_num_threads = threads
        sys.excepthook = hook
        if preload is None:
            os.environ.pop("LD_PRELOAD", None)
        else:
            os.environ["LD_PRELOAD"] = preload
