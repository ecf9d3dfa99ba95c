"""A served checkpoint does what its section asks for: the server's model class acts on it by itself."""

from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import TypeAdapter
from vllm import SamplingParams

from app.models.checkpoint import inspect
from app.recipes.recipe import Recipe
from tests.integration.workers.engine.serving.conftest import Served, Wanted, rows_of
from workers.engine.generation import GenerationEngine
from workers.engine.pool import EnginePool
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

Tiny = Callable[..., Path]


def test_the_server_draws_from_what_the_scoring_engine_simulates(tiny: Tiny, pool: EnginePool, tmp_path: Path) -> None:
    recipe: Recipe = TypeAdapter(Recipe).validate_python(
        [{"type": "quantize.activations", "bits": 4}, {"type": "quantize.kv_cache", "k_bits": 3, "v_bits": 3}]
    )
    source = inspect(tiny("llama-untied"))
    made = inspect(apply(source, recipe, device="cpu", store=CheckpointStore(tmp_path / "store", 10**9)).path)
    prompt, params = list(range(40, 70)), SamplingParams(temperature=0, max_tokens=8, logprobs=-1, detokenize=False)

    def rows(info_path: Path, name: str) -> torch.Tensor:
        served = Served(info_path, tmp_path / name, made.architecture)
        try:
            return served.run(Wanted(prompt))[0].logprobs
        finally:
            served.close()

    simulated, plain = rows(made.path, "simulated"), rows(source.path, "plain")
    with GenerationEngine(made, pool=pool, length=128, streams=1, dtype="float32") as engine:
        scored = rows_of(engine.run([prompt], [params])[0].outputs[0].logprobs)
    # Both run in float32 on the same batch: what is quantized alike is the same, to the rounding of sums.
    assert float((simulated[0] - scored[0]).abs().max()) < 1e-3
    assert float((simulated[0] - plain[0]).abs().max()) > 0.1
