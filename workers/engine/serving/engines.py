"""The hooks of each engine of this process: its model and its logits processor meet here by their configuration."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch

from app.contracts.blocks import RANK
from app.contracts.deployment import IDENTITY
from app.files import write_atomically
from app.models.shapes import LAYOUTS
from workers.engine import mending
from workers.engine import vllm_names as vllm
from workers.engine.blocks import Slots
from workers.engine.serving.batch import VERSION, Batch
from workers.engine.serving.config import ServingConfig
from workers.engine.serving.counters import Counters
from workers.engine.serving.hidden import HiddenFolder
from workers.engine.serving.nonfinite import EndedRequests
from workers.engine.serving.status import StatusServer
from workers.engine.serving.steps import STEP
from workers.engine.serving.versions import ServedModel, Versions, Watcher, load_profile
from workers.engine.sizes import SLOTS

logger = logging.getLogger(__name__)


class UnsupportedEngineError(RuntimeError):
    """The engine would run the hooks in another order, or not at all."""


@dataclass(eq=False)
class Engine:
    """What one engine of ours has beside vLLM's own. It lives as long as the process."""

    config: ServingConfig
    vllm_config: Any  # held, so that its id stays its own
    batch: Batch
    versions: Versions
    ended: EndedRequests
    counters: Counters
    watcher: Watcher
    door: StatusServer | None
    has_model: bool = False

    def close(self) -> None:
        """Ends its threads."""
        self.watcher.stop()
        if self.door is not None:
            self.door.close()
        _engines.pop(id(self.vllm_config), None)


_engines: dict[int, Engine] = {}


def check(vllm_config: Any) -> None:
    """Raises `UnsupportedEngineError` with the reason where the hooks would not hold."""
    reasons = {
        "model runner V2 is chosen, whose rows and logits processors are others; set VLLM_USE_V2_MODEL_RUNNER=0": (
            vllm_config.use_v2_model_runner
        ),
        "speculative decoding is on, which draws several tokens per row": vllm_config.speculative_config is not None,
        "asynchronous scheduling is on, which does not know the last token yet": (
            vllm_config.scheduler_config.async_scheduling
        ),
        "the model is split into pipeline stages, of which the last alone makes logits": (
            vllm_config.parallel_config.pipeline_parallel_size > 1
        ),
    }
    for reason, holds in reasons.items():
        if holds:
            raise UnsupportedEngineError(f"a calibrated server cannot start: {reason}")


def open_engine(vllm_config: Any, device: torch.device, config: ServingConfig) -> Engine:
    """Starts what an engine has beside vLLM's own, and makes it known to `of`. Raises `UnsupportedEngineError`.

    Each process that holds a part of the model has the same hooks, which do the same to the same rows. What leaves the
    process comes from the first one.
    """
    check(vllm_config)
    first = vllm.get_tp_group().rank_in_group == 0
    model_config = vllm_config.model_config
    model = ServedModel(
        hidden_size=model_config.get_hidden_size(),
        vocabulary=model_config.get_vocab_size(),
        fingerprint=config.fingerprint,
        device=device,
        dtype=model_config.dtype,
        layers=correctable_layers(vllm_config),
    )
    counters, ended = Counters(config.deployment), EndedRequests()
    versions = Versions(lambda version: load_profile(config.profiles / version, model), counters)
    watcher = Watcher(config.versions_file, versions)
    watcher.look()  # what is wanted from the start is there before the first request
    batch = Batch(
        versions=versions,
        ended=ended,
        counters=counters,
        hidden=HiddenFolder(config.hidden, expiry_s=config.hidden_expiry_s, most_bytes=config.hidden_bytes)
        if first
        else None,
        end_token=_end_token(model_config.hf_text_config),
        device=device,
        on_all_ranks=_on_all_ranks,
    )
    if _on_all_ranks(True):  # all of them have mapped it
        mending.unlink_shared_memory()
    door = None
    if first:
        door = StatusServer(
            config.door_host,
            config.door_port,
            registry=counters.registry,
            versions=versions.status,
            ended=ended,
            step_s=STEP.seconds,
            secret=config.secret,
        )
    engine = Engine(config, vllm_config, batch, versions, ended, counters, watcher, door)
    _engines[id(vllm_config)] = engine
    watcher.start()
    if door is not None:
        write_atomically(config.door_file, str(door.port).encode(), mode=0o600)
    return engine


def _on_all_ranks(here: bool) -> bool:
    """Whether `here` is true in each process that holds a part of the model. Collective: each of them calls it."""
    group = vllm.get_tp_group()
    if group.world_size == 1:
        return here
    answer = torch.tensor(int(here))
    torch.distributed.all_reduce(answer, torch.distributed.ReduceOp.MIN, group=group.cpu_group)
    return bool(answer)


def of(vllm_config: Any) -> Engine | None:
    """The hooks of the engine that has this configuration; None if it is none of ours."""
    return _engines.get(id(vllm_config))


def correctable_layers(vllm_config: Any) -> int:
    """Decoder layers whose output can be corrected; 0 if its form is not known."""
    model_config = vllm_config.model_config
    return int(model_config.hf_text_config.num_hidden_layers) if model_config.architecture in LAYOUTS else 0


def slots(model: Any, vllm_config: Any) -> Slots:
    """Room for the corrections of served versions in the layers of a model that is not compiled yet."""
    scheduler = vllm_config.scheduler_config
    graph = vllm_config.compilation_config.max_cudagraph_capture_size or 0  # rows may be filled up to it
    rows = max(scheduler.max_num_batched_tokens, graph)
    # What plain vLLM has compiled and kept must not be taken for this model.
    vllm_config.additional_config = {**vllm_config.additional_config, "hemostat_blocks": SLOTS}
    width = vllm_config.model_config.get_hidden_size()
    return Slots(model, "hemostat_versions", width=width, rows=rows, count=SLOTS, rank=RANK)


def keep_caches_apart() -> None:
    """Requests of versions that correct blocks share no prefix of the key-value cache with others: keys and values
    behind corrected blocks are the version's own. Where the model is split, this process does not know which do."""
    plain = vllm.engine_core.EngineCore.preprocess_add_request
    if hasattr(plain, "keeps_caches_apart"):
        return

    @wraps(plain)
    def preprocess(core: Any, request: Any) -> Any:
        version = str((getattr(request.sampling_params, "extra_args", None) or {}).get(VERSION, IDENTITY))
        engine = of(core.vllm_config)
        if version != IDENTITY and (engine is None or engine.batch.corrects_blocks(version)):
            request.cache_salt = f"{request.cache_salt or ''}:{version}"
        return plain(core, request)

    preprocess.keeps_caches_apart = True  # type: ignore[attr-defined]
    vllm.engine_core.EngineCore.preprocess_add_request = preprocess


def hand_on_ends() -> None:
    """The scheduler takes the next token of a request that has to end for an end. It may be in another process than the
    model: the rows go with the step's output. As a stop token, not as the end of sequence: the answer's `stop_reason`
    then shows it, whatever was asked."""
    runner_class, scheduler_class = vllm.GPUModelRunner, vllm.Scheduler
    sample, update = runner_class.sample_tokens, scheduler_class.update_from_output
    if hasattr(update, "hands_on_ends"):
        return

    @wraps(sample)
    def sample_tokens(runner: Any, grammar_output: Any) -> Any:
        output = sample(runner, grammar_output)
        engine = of(runner.vllm_config)
        if engine is not None and engine.batch.ends:
            requests = runner.input_batch.req_ids
            output.hemostat_ends = {requests[index]: token for index, token in engine.batch.ends.items()}
        return output

    @wraps(update)
    def update_from_output(scheduler: Any, scheduler_output: Any, model_runner_output: Any) -> Any:
        for request, token in getattr(model_runner_output, "hemostat_ends", {}).items():
            known = scheduler.requests.get(request)
            if known is not None:
                known.sampling_params._eos_token_id = None
                known.sampling_params.stop_token_ids = [*(known.sampling_params.stop_token_ids or ()), token]
        return update(scheduler, scheduler_output, model_runner_output)

    update_from_output.hands_on_ends = True  # type: ignore[attr-defined]
    runner_class.sample_tokens, scheduler_class.update_from_output = sample_tokens, update_from_output


def _end_token(text_config: Any) -> int:
    told = getattr(text_config, "eos_token_id", None)
    if isinstance(told, list):
        told = told[0] if told else None
    return int(told) if told is not None else 0
