"""Hidden states of text under one checkpoint: what every divergence is computed from."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo, inspect
from app.settings import Settings
from workers.engine.device import EngineIdentity, identity
from workers.engine.launch import never
from workers.engine.pool import EnginePool, resolve_dtype
from workers.engine.sizes import step_tokens

if TYPE_CHECKING:
    import torch

    from workers.calibrators.blocks import Blocks

Tokens = Sequence[int] | np.ndarray[Any, np.dtype[np.integer[Any]]]
# Windows of one step when no other limit applies.
_MOST_WINDOWS = 256


class ScoringEngine:
    """Scores text under one checkpoint, through vLLM's pooling runner.

    Engines are shared: two of these objects may stand for two checkpoints in the same running engine, whose weights are
    then swapped as needed. Each always scores its own checkpoint; to alternate between two of them costs a swap a turn,
    so score all of one before the other.

    `dtype` is one of bfloat16, float16, float32 or auto, and must be the same for two models that are compared. Without
    `load` nothing is started or swapped before the first window is scored: `identity` needs no engine.
    """

    def __init__(
        self,
        checkpoint: Path | CheckpointInfo,
        *,
        settings: Settings,
        max_model_len: int,
        dtype: str = "bfloat16",
        pool: EnginePool | None = None,
        load: bool = True,
        check_cancelled: Callable[[], None] = never,
    ) -> None:
        self.max_model_len = max_model_len
        self._own = pool is None
        self._pool = pool or EnginePool(settings)
        self._dtype = resolve_dtype(dtype)
        self.info = _look(checkpoint)
        if load:
            self.load(self.info, check_cancelled=check_cancelled)

    @property
    def identity(self) -> EngineIdentity:
        """What its hidden states depend on beside weights and tokens."""
        settings = self._pool.settings
        return identity(self._pool.device, self._dtype, settings, compiled=settings.engine_compile)

    def load(self, checkpoint: Path | CheckpointInfo, *, check_cancelled: Callable[[], None] = never) -> None:
        """Makes `checkpoint` the one that is scored: in place where shape and packing agree, else in a fresh engine.

        Raises what `inspect` raises, CHECKPOINT_NOT_FINITE, CHECKPOINT_UNSUPPORTED, WINDOW_TOO_LARGE,
        ENGINE_OUT_OF_MEMORY, ENGINE_FAILED.
        """
        info = _look(checkpoint)
        self._pool.loaded(info, self.max_model_len, self._dtype, check_cancelled)
        self.info = info

    def score(
        self,
        windows: Sequence[Tokens],
        *,
        batch: int | None = None,
        blocks: "Sequence[Blocks]" = (),
        check_cancelled: Callable[[], None] = never,
    ) -> "Iterator[tuple[int, torch.Tensor]]":
        """Yields `(index, hidden_TD)` for each window, in order; T is the window's length in tokens.

        hidden_TD is the hidden state after the final norm, on the host, in the engine's dtype, and owns its memory.
        Windows are computed in batches of whole windows: as many as the engine's step holds in tokens, or `batch`
        windows. `blocks` are those of `ResidentEngine.hidden_states`.
        `check_cancelled` is called between steps and may raise; between batches the caller has control.

        Raises WINDOW_TOO_LARGE and VOCABULARY_MISMATCH for tokens that the model cannot take, ENGINE_OUT_OF_MEMORY and
        ENGINE_FAILED.
        """
        for chunk in self._batches(windows, batch):
            engine = self._pool.loaded(self.info, self.max_model_len, self._dtype, check_cancelled)
            states = engine.hidden_states([tokens for _, tokens in chunk], check_cancelled, blocks)
            for (index, _), hidden_TD in zip(chunk, states, strict=True):
                yield index, hidden_TD

    def windows_per_step(self, tokens: int) -> int:
        """How many windows of so many tokens one step of the engine holds."""
        return max(1, min(_MOST_WINDOWS, self._step_tokens() // tokens))

    def close(self) -> None:
        """Ends the engine, unless it is shared: then it stays warm for others."""
        if self._own:
            self._pool.close()

    def _step_tokens(self) -> int:
        return step_tokens(self.info, self._pool.settings.engine_batch_tokens, self._pool.device)

    def _batches(self, windows: Sequence[Tokens], batch: int | None) -> Iterator[list[tuple[int, list[int]]]]:
        most = batch or _MOST_WINDOWS
        budget = None if batch else self._step_tokens()
        chunk: list[tuple[int, list[int]]] = []
        total = 0
        for index, window in enumerate(windows):
            tokens = self._checked(index, window)
            if chunk and (len(chunk) == most or (budget is not None and total + len(tokens) > budget)):
                yield chunk
                chunk, total = [], 0
            chunk.append((index, tokens))
            total += len(tokens)
        if chunk:
            yield chunk

    def _checked(self, index: int, window: Tokens) -> list[int]:
        tokens = np.asarray(window)
        if tokens.ndim != 1 or tokens.size == 0:
            raise ValueError(f"window {index} is not a row of tokens")
        if tokens.size > self.max_model_len:
            raise HemostatError(
                ErrorCode.WINDOW_TOO_LARGE,
                f"window {index} has {tokens.size} tokens, but the engine allows {self.max_model_len}",
                hint="use a smaller window",
                pointer="/window",
            )
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self.info.vocabulary:
            raise HemostatError(
                ErrorCode.VOCABULARY_MISMATCH,
                f"window {index} holds the token id {low if low < 0 else high} of {self.info.vocabulary} tokens",
                hint="the tokenizer does not belong to the model; correct it in models.toml",
            )
        listed: list[int] = tokens.tolist()
        return listed


def _look(checkpoint: Path | CheckpointInfo) -> CheckpointInfo:
    return inspect(checkpoint) if isinstance(checkpoint, Path) else checkpoint
