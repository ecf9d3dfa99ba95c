"""Text drawn from the model itself, for the self corpus."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from app.models.checkpoint import CheckpointInfo, inspect
from app.settings import Settings
from workers.engine import vllm_names as vllm
from workers.engine.generation import GenerationEngine
from workers.engine.launch import never
from workers.engine.pool import EnginePool, context_length

# Streams that are drawn together: more bring little on a CPU, and take memory for keys and values.
STREAMS = 32


class Sampler:
    """Draws continuations from one checkpoint; a context manager. The engine starts at the first call.

    Nothing but temperature shapes the distribution: no top-p, top-k or penalty, whatever the checkpoint's
    generation_config.json says. Give the worker's `pool`, so that warm engines make room; or `settings`.
    """

    def __init__(
        self,
        checkpoint: Path | CheckpointInfo,
        *,
        settings: Settings | None = None,
        pool: EnginePool | None = None,
        dtype: str = "bfloat16",
        check_cancelled: Callable[[], None] = never,
    ) -> None:
        self.info = inspect(checkpoint) if isinstance(checkpoint, Path) else checkpoint
        self._own = pool is None
        self._pool = pool or EnginePool(settings or Settings())
        self._dtype = dtype
        self._check_cancelled = check_cancelled
        self._engine: GenerationEngine | None = None

    def sample(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, seed: int, temperature: float
    ) -> list[list[int]]:
        """For each prompt the token ids drawn after it: at most `max_tokens`, without the token that ended the text.

        The same arguments on the same machine give the same tokens; prompts are drawn independently, equal ones too.
        Temperature 0 takes the most probable token each time. Raises WINDOW_TOO_LARGE if prompt and `max_tokens`
        exceed the context, else what `ScoringEngine.load` raises.
        """
        if not prompts:
            return []
        ends = stop_tokens(self.info)
        params = [
            vllm.SamplingParams(
                temperature=temperature,
                max_tokens=max_tokens,
                seed=_stream_seed(seed, index),
                stop_token_ids=ends,
                detokenize=False,
            )
            for index in range(len(prompts))
        ]
        engine = self._for(max(len(prompt) for prompt in prompts) + max_tokens)
        outputs = engine.run([list(prompt) for prompt in prompts], params, self._check_cancelled)
        return [_without_end(output.outputs[0], ends) for output in outputs]

    def close(self) -> None:
        """Ends the engine."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        if self._own:
            self._pool.close()

    def __enter__(self) -> "Sampler":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _for(self, length: int) -> GenerationEngine:
        length = context_length(self.info, length)
        if self._engine is None or self._engine.length < length:
            if self._engine is not None:
                self._engine.close()
            self._engine = GenerationEngine(
                self.info,
                pool=self._pool,
                length=length,
                streams=STREAMS,
                dtype=self._dtype,
                check_cancelled=self._check_cancelled,
            )
        return self._engine


def stop_tokens(info: CheckpointInfo) -> list[int]:
    """Ids of the tokens that end a text: of generation_config.json and config.json, both where they differ."""
    found: set[int] = set()
    generation: dict[str, Any] = {}
    file = info.path / "generation_config.json"
    if file.is_file():
        generation = json.loads(file.read_bytes())
    for config in (generation, info.config):
        told = config.get("eos_token_id")
        found.update(told if isinstance(told, list) else [] if told is None else [told])
    return sorted(token for token in found if 0 <= token < info.vocabulary)


def _stream_seed(seed: int, index: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}".encode()).digest()[:8]) >> 1


def _without_end(output: Any, ends: list[int]) -> list[int]:
    tokens = list(output.token_ids)
    if tokens and output.finish_reason == "stop" and tokens[-1] in ends:
        tokens.pop()
    return tokens
