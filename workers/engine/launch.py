"""Starting, running and stopping a vLLM engine inside this process."""

import contextlib
import logging
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import inspect
from app.models.packing import check_served
from workers.engine import environment, mending, norms, simulation
from workers.engine import vllm_names as vllm
from workers.engine.isolation import alone_in_the_process, globals_kept, hide_imports, quiet_vllm, release_memory
from workers.engine.split import WHOLE, Split

Between = Callable[[], None]
# Names the folder in which processes that hold a part of a model keep why they did not start.
FAULTS: Final = "HEMOSTAT_RANK_FAULTS"

# The workspace of each engine that runs in this process, by the engine's identity; None on a CPU.
_workspaces: dict[int, Any] = {}


class EngineFault(Exception):  # noqa: N818 - its cause is the error
    """vLLM failed at work; what happened is the cause. The engine's state is unknown."""


def never() -> None:
    """No one asks to stop."""


@dataclass(frozen=True)
class EngineOptions:
    """One engine. Lengths and `step_tokens` in tokens; `max_sequences` is how many prompts one step may hold.
    `kv_cache_bytes` are those of each process that holds a part of the model. `draft` is the checkpoint that drafts
    `drafted` tokens per step (`workers.engine.speculation`).
    """

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
    logits_processors: tuple[str, ...] = ()
    split: Split = WHOLE
    draft: Path | None = None
    drafted: int = 0


@cache
def load_vllm() -> None:
    """Imports vLLM and puts in what the installed version lacks; six seconds the first time in a process."""
    environment.prepare()
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)  # says that a CPU has no Triton
    with quiet_vllm():
        _ = vllm.LLMEngine
    mending.match_in_linear_time()
    mending.ask_for_tiles()
    mending.draw_for_whole_prompts_only()
    mending.multiply_in_float32()
    mending.keep_scales_alive()
    mending.override_kernels_once()
    mending.count_ranks_plainly()
    mending.inspect_in_process()
    hide_imports()


def start(options: EngineOptions) -> Any:
    """A running `vllm.v1.engine.llm_engine.LLMEngine` in this process. Raises what vLLM raises.

    Also raises CHECKPOINT_UNSUPPORTED for an architecture that vLLM does not know, and for packed weights without a
    kernel here. So it does for a checkpoint that brings layers behind the final norm. Raises what
    `workers.engine.simulation` raises for a checkpoint that asks for more than its weights.
    """
    load_vllm()
    mending.multiply_in_float32()  # for every engine again: those of a server keep single rows apart
    arguments = _arguments(options) | _looked_at(options.checkpoint, options)
    if options.draft is not None:
        arguments["speculative_config"] = {
            "model": str(options.draft),
            "method": "draft_model",
            "num_speculative_tokens": options.drafted,
            # For any number of requests the same. Not said, new requests of one token get drafts that no one made.
            "num_speculative_tokens_per_batch_size": [(1, options.max_sequences, options.drafted)],
        } | _looked_at(options.draft, options)
        arguments["disable_hybrid_kv_cache_manager"] = True  # or layers that draft may lie in two groups
    options.split.check(options.device)
    with globals_kept(), quiet_vllm(), alone_in_the_process(), _faults_of_ranks(options.split):
        mending.check_known(options.architecture)
        config = vllm.EngineArgs(**arguments).create_engine_config()
        mending.renew_groups(config)
        vllm.workspace._manager = None
        try:
            engine = vllm.LLMEngine.from_vllm_config(config, disable_log_stats=True)
        except BaseException:
            end_groups()  # they may be half made
            raise
    _workspaces[id(engine)] = vllm.workspace._manager
    try:
        on_ranks(engine, "hemostat_install", str(options.checkpoint), options.draft and str(options.draft))
        if options.runner == "pooling" and any(on_ranks(engine, "hemostat_projects")):
            raise HemostatError(
                ErrorCode.CHECKPOINT_UNSUPPORTED,
                "the folder holds a sentence-transformers projection (modules.json), which would change the hidden "
                "states",
                hint="keep only the language model in the folder",
            )
    except BaseException:
        stop(engine)
        raise
    return engine


def on_ranks(engine: Any, method: str, *given: Any) -> list[Any]:
    """What a method of `workers.engine.ranks.Rank` answers in each process that holds a part of the model.

    Raises the first error of ours that one of them answers, and what vLLM raises.
    """
    answers: list[Any] = engine.collective_rpc(method, args=given)
    for answer in answers:
        if isinstance(answer, HemostatError):
            raise answer
    return answers


def stop(engine: Any) -> None:
    """Ends an engine and frees its memory. The process groups stay, for the engines that remain and those to come."""
    _workspaces.pop(id(engine), None)
    try:
        with quiet_vllm(), alone_in_the_process():
            engine.engine_core.shutdown()
    finally:
        release_memory()


def use_workspace(engine: Any) -> None:
    """Before `engine` works: vLLM keeps one workspace per process, and drops it when any engine ends."""
    vllm.workspace._manager = _workspaces[id(engine)]


def end_groups() -> None:
    """Destroys vLLM's process groups where no engine is left in this process."""
    if not _workspaces and vllm.NAMES["parallel_state"] in sys.modules:
        mending.destroy_groups()


def run(
    engine: Any,
    prompts: Sequence[list[int]],
    params: Sequence[Any],
    between: Between = never,
) -> list[Any]:
    """The finished outputs of `prompts`, in order. `between` is called before each step and may raise to stop.

    When it has stopped so, the engine has no request left and is good for more. Raises `EngineFault` if vLLM fails.
    """
    use_workspace(engine)
    outputs: list[Any] = [None] * len(prompts)
    waiting: list[str] = []
    with faults(engine):
        for index, (tokens, one) in enumerate(zip(prompts, params, strict=True)):
            waiting.append(engine.add_request(str(index), vllm.tokens_input(tokens), one))
    while engine.has_unfinished_requests():
        try:
            between()
        except BaseException:
            engine.abort_request(waiting, internal=True)
            raise
        with faults(engine):
            for output in engine.step():
                if output.finished:
                    outputs[int(output.request_id)] = output
    return outputs


@contextlib.contextmanager
def faults(engine: Any) -> Iterator[None]:
    """Raises `EngineFault` if vLLM fails within."""
    try:
        yield
    except Exception as error:
        if getattr(engine.model_executor, "is_failed", False):
            raise EngineFault from HemostatError(
                ErrorCode.ENGINE_FAILED,
                "a process with a part of the model ended",
                hint="read the worker's log and the kernel's log: memory may have run out",
            )
        raise EngineFault from error


@contextlib.contextmanager
def _faults_of_ranks(split: Split) -> Iterator[None]:
    """Raises what stopped a process that was to hold a part of the model, instead of vLLM's word that one stopped."""
    if split.ranks == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="hemostat-") as folder, split.environment({FAULTS: folder}):
        try:
            yield
        except Exception as error:
            files = sorted(Path(folder).glob("*.error"), key=lambda file: file.stat().st_mtime_ns)
            if not files:
                raise
            causes = [pickle.loads(file.read_bytes()) for file in files]  # noqa: S301 - children of ours wrote them
            # One part that ends takes the others with it: an error of ours is the cause, else the oldest.
            raise next((cause for cause in causes if isinstance(cause, HemostatError)), causes[0]) from error


def _arguments(options: EngineOptions) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "model": str(options.checkpoint),
        "runner": options.runner,
        "skip_tokenizer_init": True,  # tokens go in and tokens come out
        "load_format": "safetensors",
        "config_format": "hf",  # config.json, which was looked into, also where Mistral's params.json is beside it
        "use_tqdm_on_load": False,
        "model_impl": "vllm",
        "generation_config": "vllm",  # no sampling defaults that the checkpoint brings
        "dtype": options.dtype,
        "max_model_len": options.max_model_len,
        "max_num_batched_tokens": max(options.step_tokens, options.max_sequences),
        "max_num_seqs": options.max_sequences,
        "enable_chunked_prefill": True,
        "enable_prefix_caching": options.draft is not None,
        "kv_cache_memory_bytes": options.kv_cache_bytes,
        "enforce_eager": not options.compiled,
        "async_scheduling": False,
        "disable_log_stats": True,
        "seed": 0,
        "worker_extension_cls": "workers.engine.ranks.Rank",
        **options.split.arguments(),
    }
    if options.runner == "pooling":
        arguments |= {
            "convert": "embed",
            "pooler_config": vllm.PoolerConfig(task="token_embed", use_activation=False),
            "hf_overrides": {"head_dtype": "model"},  # a pooling head would be cast to float32 for nothing
        }
    else:
        arguments["max_logprobs"] = -1
        arguments["logits_processors"] = list(options.logits_processors) or None
    if options.device == "cpu" and not options.compiled:
        norms.register()
        arguments["ir_op_priority"] = norms.PRIORITY
    if options.device == "cuda":
        import torch

        free, total = torch.cuda.mem_get_info()
        # Not what is taken (the size of the KV cache is given) but what must be free, or vLLM refuses to start.
        arguments["gpu_memory_utilization"] = min(0.9, 0.95 * free / total)
    return arguments


def _looked_at(checkpoint: Path, options: EngineOptions) -> dict[str, Any]:
    """What a checkpoint asks of its engine's arguments. Raises what `start` raises for one that cannot run."""
    info = inspect(checkpoint)
    if options.device == "cpu":
        check_served(info.quantization, checkpoint.name)
    section = simulation.section_of(info.config)
    simulation.refuse_compiled(info.config, compiled=options.compiled)
    return {} if section is None or section.kv_dtype is None else {"kv_cache_dtype": section.kv_dtype}
