"""vLLM's own log-probabilities of a prompt: what our head is checked against, and what a bench compares with."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo, inspect
from app.settings import Settings
from workers.engine import vllm_names as vllm
from workers.engine.generation import GenerationEngine
from workers.engine.launch import never
from workers.engine.pool import EnginePool

TOP = 64
ALL = -1
Array = np.ndarray[Any, np.dtype[np.float32]]


def prompt_logprobs(
    checkpoint: Path | CheckpointInfo,
    tokens: Sequence[int],
    *,
    settings: Settings | None = None,
    pool: EnginePool | None = None,
    dtype: str = "bfloat16",
    top: int = TOP,
    check_cancelled: Callable[[], None] = never,
) -> Array:
    """ln p, in nats, of each of tokens[1:] and of the `top` likeliest tokens in its place, by a generate-runner engine.
    Rows (T-1, V), float32, NaN for every other token.

    `ALL` gives whole rows: vLLM builds a Python object for each number, so a large vocabulary takes minutes. Logits are
    bf16 where the engine is (that is how vLLM computes them), the softmax is float32.

    Give the worker's `pool`, so that warm engines make room; or `settings`. Raises WINDOW_TOO_LARGE if the context
    holds no more than `tokens` less one, else what `ScoringEngine.load` raises.
    """
    info = inspect(checkpoint) if isinstance(checkpoint, Path) else checkpoint
    prompt = [int(token) for token in tokens]
    if len(prompt) < 2:
        raise ValueError("at least two tokens are needed for one prediction")
    if info.max_position is not None and len(prompt) >= info.max_position:
        raise HemostatError(
            ErrorCode.WINDOW_TOO_LARGE,
            f"{len(prompt)} tokens and one more do not fit the context of {info.max_position}",
            hint="use a shorter text",
        )
    own = EnginePool(settings or Settings()) if pool is None else pool
    try:
        output = _run(own, info, prompt, dtype, top=top, check_cancelled=check_cancelled)
    finally:
        if pool is None:
            own.close()
    return _rows(output.prompt_logprobs, info.vocabulary)


def _run(
    pool: EnginePool,
    info: CheckpointInfo,
    prompt: list[int],
    dtype: str,
    *,
    top: int,
    check_cancelled: Callable[[], None],
) -> Any:
    params = vllm.SamplingParams(
        max_tokens=1, temperature=0.0, prompt_logprobs=top, flat_logprobs=True, detokenize=False
    )
    with GenerationEngine(
        info, pool=pool, length=len(prompt) + 1, streams=1, dtype=dtype, check_cancelled=check_cancelled
    ) as engine:
        (output,) = engine.run([prompt], [params], check_cancelled)
    return output


def _rows(found: Any, vocabulary: int) -> Array:
    """The first position, which has no prefix, is left out."""
    ids, values = np.asarray(found.token_ids), np.asarray(found.logprobs, dtype=np.float32)
    spans = list(zip(found.start_indices[1:], found.end_indices[1:], strict=True))
    rows = np.full((len(spans), vocabulary), np.nan, dtype=np.float32)
    for row, (start, end) in zip(rows, spans, strict=True):
        row[ids[start:end]] = values[start:end]
    return rows
