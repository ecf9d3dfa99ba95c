"""An engine with a head, for the few things that hidden states cannot give: vLLM's own log-probabilities, and samples.

It lives for one use: it is not kept warm beside the scoring engines.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo, inspect
from app.settings import Settings
from workers.engine import launch
from workers.engine.errors import translate
from workers.engine.finite import check_finite
from workers.engine.launch import EngineFault, EngineOptions, never
from workers.engine.pool import EnginePool, needed_bytes, resolve_dtype
from workers.engine.sizes import kv_cache_bytes, step_tokens
from workers.engine.split import Split


class GenerationEngine:
    """A running generate-runner engine of one checkpoint; a context manager.

    `length` is the most tokens of a prompt and what is drawn after it, `streams` how many prompts run at once.
    `logits_processors` are classes as `module:Class`. `kv_tokens` is of how many tokens keys and values are kept; None:
    of all streams at full length.
    Raises WINDOW_TOO_LARGE if the model's context is shorter, else what `ScoringEngine.load` raises.
    """

    def __init__(
        self,
        checkpoint: Path | CheckpointInfo,
        *,
        pool: EnginePool,
        length: int,
        streams: int,
        dtype: str = "bfloat16",
        logits_processors: tuple[str, ...] = (),
        kv_tokens: int | None = None,
        check_cancelled: Callable[[], None] = never,
    ) -> None:
        self.info = inspect(checkpoint) if isinstance(checkpoint, Path) else checkpoint
        self.length = length
        dtype = resolve_dtype(dtype)
        settings: Settings = pool.settings
        tokens = step_tokens(self.info, settings.engine_batch_tokens, pool.device)
        options = EngineOptions(
            checkpoint=self.info.path,
            architecture=self.info.architecture,
            runner="generate",
            device=pool.device,
            dtype=dtype,
            max_model_len=length,
            step_tokens=max(tokens, streams),
            max_sequences=streams,
            kv_cache_bytes=kv_cache_bytes(self.info, settings, dtype, kv_tokens or streams * _padded(length)),
            logits_processors=logits_processors,
            split=Split.of(settings),
        )
        check_finite(self.info, check_cancelled)
        pool.make_room(needed_bytes(self.info, options))
        try:
            self._engine: Any = launch.start(options)
        except Exception as error:
            raise translate(error, f"while starting a generating engine for {self.info.path.name}") from error

    def run(
        self,
        prompts: Sequence[list[int]],
        params: Sequence[Any],
        check_cancelled: Callable[[], None] = never,
    ) -> list[Any]:
        """vLLM's finished outputs, in order; `params` are its `SamplingParams`, one per prompt.

        Raises VOCABULARY_MISMATCH for a token that the model has not, ENGINE_OUT_OF_MEMORY and ENGINE_FAILED.
        """
        for tokens in prompts:
            if not tokens or not 0 <= min(tokens) <= max(tokens) < self.info.vocabulary:
                raise HemostatError(
                    ErrorCode.VOCABULARY_MISMATCH,
                    f"a prompt is empty or holds a token outside the model's {self.info.vocabulary}",
                    hint="the tokenizer does not belong to the model; correct it in models.toml",
                )
        try:
            return launch.run(self._engine, prompts, params, check_cancelled)
        except EngineFault as fault:
            self.close()
            raise translate(fault.__cause__ or fault, "while generating") from fault.__cause__

    def close(self) -> None:
        """Ends the engine."""
        engine, self._engine = self._engine, None
        if engine is not None:
            launch.stop(engine)

    def __enter__(self) -> "GenerationEngine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _padded(length: int) -> int:
    return -(-length // 128) * 128
