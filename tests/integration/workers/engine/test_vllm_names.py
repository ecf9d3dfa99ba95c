"""What we read of vLLM's running objects, which no signature shows."""

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from app.models.checkpoint import inspect
from tests.support.engines import model_of
from workers.engine import launch, vllm_names
from workers.engine.launch import EngineOptions
from workers.engine.pool import EnginePool

CONFIG = (
    "use_v2_model_runner",
    "speculative_config",
    "scheduler_config.async_scheduling",
    "parallel_config.pipeline_parallel_size",
    "model_config.is_moe",
    "model_config.architecture",
    "model_config.enforce_eager",
    "model_config.hf_config.to_dict",
    "compilation_config.static_forward_context",
    "cache_config.block_size",
    "device_config.device_type",
)
RUNNER = (
    "input_batch.req_ids",
    "intermediate_tensors",
    "max_num_tokens",
    "model_config.dtype",
    "device",
    "input_batch.generators",
    "requests",
    "discard_request_mask.np",
    "input_batch.num_reqs",
    "num_spec_tokens",
    "get_model",
)
PASS = ("query_start_loc", "seq_lens", "block_table")


def lacking(what: Any, paths: tuple[str, ...]) -> list[str]:
    found = []
    for path in paths:
        try:
            reduce(getattr, path.split("."), what)
        except AttributeError as error:
            found.append(f"{type(what).__module__}.{type(what).__name__}.{path}: {error}")
    return found


@pytest.mark.parametrize("runner", ["pooling", "generate"])
def test_an_engine_has_what_we_read_of_it(runner: Any, tiny: Callable[..., Path], pool: EnginePool) -> None:
    options: EngineOptions = replace(pool._options(inspect(tiny("llama")), 128, "bfloat16"), runner=runner)
    engine, passes = launch.start(options), []
    try:
        model = model_of(engine)
        model.register_forward_pre_hook(
            lambda *_: passes.append(next(iter(vllm_names.get_forward_context().attn_metadata.values())))
        )
        pooling = vllm_names.PoolingParams(task="token_embed", use_activation=False)
        drawn = vllm_names.SamplingParams(max_tokens=2, temperature=0.0, prompt_logprobs=3, flat_logprobs=True)
        params = pooling if runner == "pooling" else drawn
        (output,) = launch.run(engine, [[1, 2, 3]], [params])
        found = lacking(engine.vllm_config, CONFIG)
        found += lacking(engine.model_executor.driver_worker.worker.model_runner, RUNNER)
        found += lacking(passes[0], PASS)
        if runner == "pooling":
            found += lacking(output, ("outputs.data.shape", "request_id", "finished"))
            found += lacking(model, ("pooler.poolers_by_task",))
        else:
            found += lacking(output.outputs[0], ("token_ids", "finish_reason"))
            found += lacking(output.prompt_logprobs, ("token_ids", "logprobs", "start_indices", "end_indices"))
        assert not found, "\n".join(found)
    finally:
        launch.stop(engine)
