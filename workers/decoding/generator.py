"""One checkpoint under any decoder: in vLLM where vLLM has the decoder, else in a loop of our own over transformers.

In vLLM too the token is drawn here, from the logits that vLLM shows, so that both models of a comparison take the same
random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from app.contracts.decoding import Decoder, Greedy, rows_of, runs_in_vllm
from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo, inspect
from workers.decoding.loop import decode
from workers.decoding.model import Continuation, check_logits
from workers.decoding.rules import Draws, drawn
from workers.engine.drafting import DraftEngine
from workers.engine.launch import never
from workers.engine.pool import EnginePool, context_length, resolve_dtype
from workers.engine.sampling import stop_tokens
from workers.engine.shape import kv_bytes_per_token
from workers.engine.sizes import step_tokens

if TYPE_CHECKING:
    import torch

    from workers.decoding.transformers_model import TransformersModel

# Rows that run at once: more bring little on a CPU, and take memory for keys and values.
STREAMS: Final = 32


class Generator:
    """Continues prompts with one checkpoint; a context manager.

    `length` is the most tokens of a prompt and what follows it. The engine, or the model, starts when a decoder first
    needs it and takes the other's place: name the decoders of one kind one after the other. Raises WINDOW_TOO_LARGE
    where the model's context is shorter than `length`, else what `GenerationEngine` and `TransformersModel` raise.
    """

    def __init__(
        self,
        checkpoint: Path | CheckpointInfo,
        *,
        pool: EnginePool,
        length: int,
        streams: int = STREAMS,
        dtype: str = "bfloat16",
        check_cancelled: Callable[[], None] = never,
    ) -> None:
        self.info = inspect(checkpoint) if isinstance(checkpoint, Path) else checkpoint
        self._pool, self._streams, self._dtype = pool, streams, resolve_dtype(dtype)
        limit = self.info.max_position
        if limit is not None and length > limit:
            raise HemostatError(
                ErrorCode.WINDOW_TOO_LARGE,
                f"a prompt and its answer take {length} tokens, but the context of {self.info.path.name} has {limit}",
                hint=f"give shorter prompts, or fewer tokens to generate: at most {limit} together",
            )
        self._length = context_length(self.info, length)
        self._check_cancelled = check_cancelled
        self._shown: tuple[Any, Draws, Callable[[int], None]] | None = None
        self._engine: DraftEngine | None = None
        self._model: TransformersModel | None = None
        self._rows = 0  # that there is room for beside the model
        self.ends = frozenset(stop_tokens(self.info))

    def run(
        self,
        decoder: Decoder,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        seed: int = 0,
        keys: Sequence[int] | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
        tick: Callable[[int], None] = lambda tokens: None,
    ) -> list[Continuation]:
        """The continuation of each prompt, in order; at most `max_tokens`, the token that ended the text included.

        `keys` name the prompts in the stream of random numbers of `seed`; default: their places. `progress` gets
        prompts done, and all; `tick` how many tokens the step added, and must not raise.
        """
        keys = list(range(len(prompts))) if keys is None else list(keys)
        size = max(1, self._streams // rows_of(decoder))
        made: list[Continuation] = []
        for start in range(0, len(prompts), size):
            progress(start, len(prompts))
            part, named = prompts[start : start + size], keys[start : start + size]
            if runs_in_vllm(decoder):
                made += self._in_vllm(decoder, part, named, max_tokens, seed, tick)
            else:
                made += decode(
                    self._loaded(rows_of(decoder)),
                    part,
                    decoder,
                    max_tokens=max_tokens,
                    ends=self.ends,
                    seed=seed,
                    keys=named,
                    tick=tick,
                )
        progress(len(prompts), len(prompts))
        return made

    def close(self) -> None:
        """Ends engine and model."""
        self._end_engine()
        self._model = None

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _in_vllm(
        self,
        decoder: Any,
        prompts: Sequence[Sequence[int]],
        keys: Sequence[int],
        max_tokens: int,
        seed: int,
        tick: Callable[[int], None],
    ) -> list[Continuation]:
        engine = self._started()
        self._shown = decoder, Draws(seed, keys, max_tokens), tick
        try:
            texts = engine.block(
                [list(prompt) for prompt in prompts],
                list(range(len(prompts))),
                [max_tokens] * len(prompts),
                self._check_cancelled,
                ends=sorted(self.ends),
            )
        except HemostatError:
            self._end_engine()  # its state is not known
            raise
        return [Continuation(tuple(text), text[-1] in self.ends) for text in texts]

    def _draw(self, logits_RV: torch.Tensor, places: Sequence[tuple[int, int]]) -> list[int]:
        """A token of each row that vLLM shows, of a prompt of the part that runs at a step."""
        if self._shown is None:
            raise RuntimeError("vLLM asks for tokens that no one wants")
        decoder, draws, tick = self._shown
        tick(len(places))
        logits_RV = logits_RV[:, : self.info.vocabulary]
        check_logits(logits_RV, self.info)
        if isinstance(decoder, Greedy):
            return [int(token) for token in logits_RV.argmax(1)]
        return drawn(logits_RV, decoder, draws, places)

    def _started(self) -> DraftEngine:
        if self._engine is None:
            self._model = None
            self._engine = DraftEngine(
                self.info,
                self._draw,
                pool=self._pool,
                length=self._length,
                streams=self._streams,
                dtype=self._dtype,
                check_cancelled=self._check_cancelled,
            )
        return self._engine

    def _loaded(self, rows: int) -> TransformersModel:
        """The model, with room for the keys and values of `rows` rows, at least as many as run at once elsewhere."""
        rows = max(rows, self._streams)
        if self._model is not None and rows > self._rows:
            self._pool.make_room((rows - self._rows) * self._row_bytes())
            self._rows = rows
        if self._model is None:
            import torch

            from workers.decoding.transformers_model import TransformersModel

            self._end_engine()
            item = self._item_bytes()
            self._pool.make_room(item * self.info.parameters + rows * self._row_bytes())
            self._rows = rows
            self._model = TransformersModel(
                self.info,
                dtype=getattr(torch, self._dtype),
                device=self._pool.device,
                step_tokens=step_tokens(self.info, self._pool.settings.engine_batch_tokens, self._pool.device),
                check_cancelled=self._check_cancelled,
            )
        return self._model

    def _item_bytes(self) -> int:
        return 4 if self._dtype == "float32" else 2

    def _row_bytes(self) -> int:
        """Of the keys and values of one row, as long as it may become."""
        return self._length * kv_bytes_per_token(self.info.config, self._item_bytes())

    def _end_engine(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
