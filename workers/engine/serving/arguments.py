"""How a replica's server is started: vLLM's arguments, its environment, and how much memory it may take."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo
from app.settings import Settings
from workers.engine.device import available_bytes
from workers.engine.environment import child_environment
from workers.engine.serving import plugin
from workers.engine.serving.config import GUARD, VARIABLE
from workers.engine.shape import kv_bytes_per_token
from workers.engine.simulation import needs_eager, needs_hooks, section_of
from workers.engine.sizes import (
    BLOCK,
    ITEM_BYTES,
    OVERHEAD_BYTES,
    gpu_working_bytes,
    repair_bytes,
    single_row_bytes,
    slot_bytes,
    step_tokens,
    weight_bytes,
)
from workers.engine.split import Split

TRACKER: Final = "workers.engine.serving.processor:RowTracker"
LONGEST_DEFAULT: Final = 4096
CPU_SEQUENCES: Final = 64
CUDA_SEQUENCES: Final = 256
# A step is as long as its tokens take: longer ones make running streams wait for somebody's prompt.
CPU_STEP_TOKENS: Final = 2048
# It times its steps. On a CPU vLLM would put the model into a process of its own ("uni" means that too), and the one
# that schedules keeps asking whether it is done: a core that the model wants. Named by its path it is taken as it is.
IN_PROCESS: Final = "workers.engine.serving.executor.InProcessExecutor"
# Of a request's context, what is reckoned with on average where every sequence is in use.
_USUAL_TOKENS: Final = 1024
# No default that a checkpoint brings changes how tokens are drawn; which tokens end a text is still taken from it.
NEUTRAL_SAMPLING: Final = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}


@dataclass(frozen=True)
class ServerPlan:
    """One server. `max_model_len` in tokens; `hooked` False: plain vLLM, for comparison; `guarded`: it asks for the
    internal secret of its configuration."""

    name: str
    info: CheckpointInfo
    tokenizer: Path
    dtype: str
    device: str
    host: str
    port: int
    max_model_len: int
    kv_cache_bytes: int
    hooked: bool = True
    guarded: bool = False


def context_limit(info: CheckpointInfo, asked: int | None) -> int:
    """Tokens of prompt and answer together: what is asked for, else the model's own, at most 4096.

    Raises CONTEXT_EXCEEDED if more is asked for than the model has.
    """
    limit = info.max_position
    if asked is None:
        return min(limit or LONGEST_DEFAULT, LONGEST_DEFAULT)
    if limit is not None and asked > limit:
        raise HemostatError(
            ErrorCode.CONTEXT_EXCEEDED,
            f"max_model_len is {asked}, but the model was made for {limit} tokens",
            hint=f"leave max_model_len out, or give at most {limit}",
            pointer="/max_model_len",
        )
    return asked


def cache_bytes(info: CheckpointInfo, settings: Settings, *, dtype: str, max_model_len: int, total: int) -> int:
    """Bytes for keys and values on a CPU with `total` bytes of memory: what is left of the share beside the weights.
    Of a split model, in each of its processes.

    At most what `CPU_SEQUENCES` requests of usual length need, at least one request of `max_model_len`.
    """
    split = Split.of(settings)
    token = kv_bytes_per_token(info.config, ITEM_BYTES[dtype], split)
    least = _padded(max_model_len + BLOCK) * token
    most = CPU_SEQUENCES * min(_padded(max_model_len), _USUAL_TOKENS) * token
    share = int(settings.share_serving * total) - _cpu_bytes(info, dtype)
    return max(least, min(most, share // split.ranks))


def gpu_cache_bytes(info: CheckpointInfo, settings: Settings, *, dtype: str, max_model_len: int, total: int) -> int:
    """Bytes for keys and values on a GPU with `total` bytes: what the share leaves beside weights and working memory.
    Of a split model, on each of its GPUs.

    It is given, because vLLM would measure it while other processes take and free memory of the GPU. Raises
    ENGINE_OUT_OF_MEMORY if the share does not hold one request of `max_model_len`.
    """
    split = Split.of(settings)
    weights = weight_bytes(info, dtype, "cuda", head=True) // split.ranks
    besides = weights + gpu_working_bytes(info, CUDA_SEQUENCES) + slot_bytes(info) + repair_bytes(info)
    least = besides + _padded(max_model_len + BLOCK) * kv_bytes_per_token(info.config, ITEM_BYTES[dtype], split)
    share = int(settings.share_serving * total)
    if share < least:
        enough = math.ceil(100 * least / total) / 100
        raise HemostatError(
            ErrorCode.ENGINE_OUT_OF_MEMORY,
            f"a replica needs about {least / 1e9:.1f} GB of the GPU; "
            f"HEMOSTAT_SHARE_SERVING={settings.share_serving:g} of its {total / 1e9:.1f} GB is {share / 1e9:.1f} GB",
            hint="take a GPU with more memory"
            if enough > 1
            else f"set it to {enough:g}, or give a smaller max_model_len",
        )
    return share - besides


def check_room(info: CheckpointInfo, *, dtype: str, kv_cache_bytes: int) -> None:
    """Raises ENGINE_OUT_OF_MEMORY if weights and cache would not fit into the host's free memory."""
    needed, free = _cpu_bytes(info, dtype) + kv_cache_bytes, available_bytes("cpu")
    if needed > free:
        raise HemostatError(
            ErrorCode.ENGINE_OUT_OF_MEMORY,
            f"weights and cache take {needed >> 20} MiB, {free >> 20} MiB are free",
            hint="give a smaller max_model_len, or serve fewer models on this machine",
        )


def has_room_for_single_rows(
    info: CheckpointInfo, settings: Settings, *, dtype: str, kv_cache_bytes: int, total: int
) -> bool:
    """Whether rows that come alone gain by weights of their own on this processor, and these fit. They must fit into
    what is free of the host's memory, and, beside weights, cache and working memory, into the share of its `total`."""
    besides = single_row_bytes(info, dtype, "cpu")
    needed = _cpu_bytes(info, dtype) + kv_cache_bytes + besides + OVERHEAD_BYTES
    return besides > 0 and needed <= min(available_bytes("cpu"), int(settings.share_serving * total))


def _cpu_bytes(info: CheckpointInfo, dtype: str) -> int:
    """Of the weights, and of a repair beside them."""
    return weight_bytes(info, dtype, "cpu", head=True) + repair_bytes(info)


def split_of(settings: Settings, device: str) -> Split:
    """Over how many processes a replica is split. Raises ENGINE_FAILED for a split that the hooks do not hold in, and
    what `Split.check` raises."""
    split = Split.of(settings)
    if split.ranks > 1 and split.executor == "ray":
        raise HemostatError(
            ErrorCode.ENGINE_FAILED,
            "the parts of a replica run on one host, but HEMOSTAT_ENGINE_EXECUTOR is ray",
            hint="set it to mp for the host that serves",
        )
    split.check(device)
    return split


def server_arguments(plan: ServerPlan, settings: Settings) -> list[str]:
    """The arguments of vLLM's server. What a checkpoint asks for beside weights the hooks do.

    Raises CHECKPOINT_UNSUPPORTED for such a checkpoint in a server without hooks, CHECKPOINT_CORRUPT for a damaged
    section, and what `split_of` raises.
    """
    section = section_of(plan.info.config)
    if needs_hooks(plan.info.config) and not plan.hooked:
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            "plain vLLM does not support the checkpoint's run-time changes",
            hint="serve it with the hooks",
        )
    cuda = plan.device == "cuda"
    sequences = CUDA_SEQUENCES if cuda else CPU_SEQUENCES
    split = split_of(settings, plan.device)
    step = step_tokens(plan.info, settings.engine_batch_tokens, plan.device)
    arguments = [
        *("--model", str(plan.info.path), "--tokenizer", str(plan.tokenizer)),
        *("--served-model-name", plan.name, "--host", plan.host, "--port", str(plan.port)),
        *("--dtype", plan.dtype, "--load-format", "safetensors", "--max-model-len", str(plan.max_model_len)),
        # What was looked into, also where Mistral's own configuration and tokenizer lie beside it.
        *("--config-format", "hf", "--tokenizer-mode", "hf"),
        *("--max-num-seqs", str(sequences), "--kv-cache-memory-bytes", str(plan.kv_cache_bytes)),
        *("--max-num-batched-tokens", str(max(step if cuda else min(step, CPU_STEP_TOKENS), sequences))),
        *("--override-generation-config", json.dumps(NEUTRAL_SAMPLING)),
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
        *("--no-async-scheduling", "--seed", "0", "--tensor-parallel-size", str(split.tensor)),
        *("--distributed-executor-backend", IN_PROCESS if split.ranks == 1 else split.executor),
        *("--disable-uvicorn-access-log", "--uvicorn-log-level", "warning"),
    ]
    if cuda:  # so much must be free when it starts
        arguments += ["--gpu-memory-utilization", f"{settings.share_serving:g}"]
    if needs_eager(plan.info.config) or not (cuda or settings.engine_compile):
        arguments.append("--enforce-eager")
    if section is not None and section.kv_dtype is not None:
        arguments += ["--kv-cache-dtype", section.kv_dtype]
    if plan.hooked:
        arguments += ["--logits-processors", TRACKER]
    if plan.guarded:
        arguments += ["--middleware", GUARD]
    return arguments


def command(arguments: list[str], parent: int) -> list[str]:
    """The command line of the server process, a child of `parent`."""
    return [sys.executable, "-m", "workers.engine.serving.server", "--parent", str(parent), "--", *arguments]


def server_environment(
    config_file: Path | None, base: Mapping[str, str] | None = None, *, device: str, ranks: int = 1
) -> dict[str, str]:
    """Its environment; `config_file` None: plain vLLM. `ranks` processes that hold parts of the model share threads."""
    environment = child_environment(base)
    if device == "cuda":
        environment.pop("OMP_NUM_THREADS", None)  # vLLM takes one thread then: others would wait by spinning
    elif ranks > 1:
        outer, *_ = environment["OMP_NUM_THREADS"].split(",")  # a number per level of nesting
        environment["OMP_NUM_THREADS"] = str(max(1, int(outer) // ranks))
    # The HTTP side and the engine are two processes: neither may wait for the other.
    environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
    environment["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    environment.setdefault("HF_HUB_OFFLINE", "1")
    environment.pop(VARIABLE, None)
    if config_file is not None:
        environment["VLLM_PLUGINS"] = plugin.NAME
        environment[VARIABLE] = str(config_file)
    return environment


def _padded(tokens: int) -> int:
    return -(-tokens // BLOCK) * BLOCK
