"""Rounds of verified decoding: in each the reference verifies the last drafts of all streams, and the candidate drafts
the next.

Names: K drafted tokens, R rows, V vocabulary.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo
from workers.calibration.verified.speculative import NotFiniteError, draw, verify
from workers.calibration.verified.truncation import Sampling, distribution
from workers.distributions.head import Head
from workers.engine.launch import never
from workers.engine.pool import EnginePool
from workers.engine.speculation import SpeculativeEngine

Array = NDArray[np.float64]

# Tokens that the candidate drafts at a time. On a CPU a drafted token takes as long as a pass of the reference, so
# that one is best: 1.7 tokens in the time of two passes, against 2.2 in that of three.
BLOCKS: Final = {"cpu": 1, "cuda": 4}
# Rows whose distributions are made at once: float64 over the vocabulary, a few times over.
_ROWS: Final = 64


@dataclass(eq=False)
class Stream:
    """One answer on its way. `stops` are the token ids that end it; the same seed gives the same answer again.

    `drafted`, `accepted` and `overlap` count the drafted tokens that were judged and belong to the answer. `draft` is
    the tokens that the candidate drafted last, and q at each of them. The first token of an answer comes from the
    reference alone, unless `drafted_first`. `exact` gets p at the place of each block's first token if it is a list.
    """

    prompt: list[int]
    sampling: Sampling
    max_tokens: int
    stops: frozenset[int] = frozenset()
    generator: np.random.Generator = field(default_factory=np.random.default_rng)
    output: list[int] = field(default_factory=list)
    drafted: int = 0
    accepted: int = 0
    passes: int = 0
    overlap: float = 0.0  # sum over drafted positions of 1 − TV(p, q)
    draft: list[tuple[int, Array]] = field(default_factory=list)
    heated: Sampling | None = None  # how the candidate draws, where not as the answer: exactness does not depend on it
    drafted_first: bool = False
    exact: list[Array] | None = None
    finish: str | None = None
    stop_token: int | None = None
    salt: str | None = None  # streams of different salts share no prefix in the draft's cache

    @property
    def drawn(self) -> int:
        """Tokens that were drawn: the answer's, and the one that ended it where one did."""
        return len(self.output) + (self.stop_token is not None)

    @property
    def acceptance_rate(self) -> float | None:
        """Mean of 1 − TV(p, q), the probability of keeping a drafted token, over the positions that were judged."""
        return self.overlap / self.drafted if self.drafted else None

    @property
    def tokens_per_pass(self) -> float | None:
        """Tokens that came out, for each pass of the reference."""
        return self.drawn / self.passes if self.passes else None

    def take(self, tokens: Sequence[int]) -> list[int]:
        """Adds tokens up to the first that ends the answer; those that were added, the end left out."""
        added: list[int] = []
        for token in tokens:
            if token in self.stops:
                self.finish, self.stop_token = "stop", token
                break
            added.append(token)
            self.output.append(token)
            if len(self.output) >= self.max_tokens:
                self.finish = "length"
                break
        return added

    def cut(self, dropped: int) -> None:
        """Takes the last tokens back: the text ended before them."""
        if dropped:
            del self.output[-dropped:]
        self.finish, self.stop_token = "stop", None


class Verifier:
    """Both models in an engine, and the reference's head in float32. Close it in the thread that made it.

    Raises what `SpeculativeEngine` raises.
    """

    def __init__(
        self,
        reference: CheckpointInfo,
        candidate: CheckpointInfo,
        head: Head,
        *,
        pool: EnginePool,
        length: int,
        streams: int,
        block: int | None = None,
        dtype: str = "bfloat16",
        kv_tokens: int | None = None,
        check_cancelled: Callable[[], None] = never,
    ) -> None:
        self.info, self.head, self.length = reference, head, length
        self.block = block or BLOCKS[pool.device]
        self._keys: dict[Stream, str] = {}
        self._streams: dict[str, Stream] = {}
        self._gained: dict[Stream, list[int]] = {}
        self._engine = SpeculativeEngine(
            reference,
            candidate,
            self,
            pool=pool,
            length=length,
            streams=streams,
            block=self.block,
            dtype=dtype,
            kv_tokens=kv_tokens,
            check_cancelled=check_cancelled,
        )

    def round(self, streams: Sequence[Stream], check_cancelled: Callable[[], None] = never) -> list[list[int]]:
        """One pass over the streams; the tokens that each gained. Streams must not be finished; those of earlier rounds
        that are not among them are forgotten. More than run at once wait in their order.

        A stream whose reference distribution is not finite ends as `error`. Raises what the engine raises, and
        ENGINE_FAILED if it took other tokens than were drawn.
        """
        check_cancelled()
        wanted = set(streams)
        self._forget([stream for stream in self._keys if stream not in wanted])
        for stream in streams:
            if stream not in self._keys:
                key = self._engine.add(stream.prompt[: -1 if stream.drafted_first else None], stream.salt)
                self._keys[stream], self._streams[key] = key, stream
        self._gained = {}
        for key, tokens in self._engine.step().items():
            ours = self._streams[key]
            if ours.finish is None and tokens != (ours.prompt[-1:] if ours.drafted_first else []) + ours.output:
                raise _otherwise()
        self._forget([stream for stream in streams if stream.finish is not None])
        return [self._gained.get(stream, []) for stream in streams]

    def reference(
        self,
        prefixes: Sequence[Sequence[int]],
        samplings: Sequence[Sampling],
        check_cancelled: Callable[[], None] = never,
    ) -> list[Array]:
        """The reference's distribution after each prefix, after the request's sampling. No draft plays a part."""
        streams = [
            Stream(list(prefix), sampling, 1, exact=[]) for prefix, sampling in zip(prefixes, samplings, strict=True)
        ]
        while waiting := [stream for stream in streams if stream.finish is None]:
            self.round(waiting, check_cancelled)
        return [p_V for stream in streams for p_V in stream.exact or ()]

    def close(self) -> None:
        """Ends the engine."""
        self._engine.close()

    def logits(self, hidden_RD: torch.Tensor) -> torch.Tensor:
        """Of the reference, float32."""
        return self.head.logits(hidden_RD)

    def drafted(self, keys: Sequence[str], logits_RV: torch.Tensor) -> list[int]:
        """Draws the candidate's next tokens. Streams that have ended draw none."""
        live = [row for row, key in enumerate(keys) if self._streams[key].finish is None]
        streams = [self._streams[keys[row]] for row in live]
        tokens = [0] * len(keys)
        rows = logits_RV if len(live) == len(keys) else logits_RV[live]
        drawn = _distributions(rows, [stream.heated or stream.sampling for stream in streams])
        for row, stream, q_V in zip(live, streams, drawn, strict=True):
            with contextlib.suppress(NotFiniteError):  # the block ends before it
                tokens[row] = draw(q_V, stream.generator.random())
            stream.draft.append((tokens[row], q_V))
        return tokens

    def verified(self, keys: Sequence[str], drafts: Sequence[list[int]], logits_RV: torch.Tensor) -> list[list[int]]:
        """Keeps or replaces what was drafted. Raises ENGINE_FAILED for tokens that were not drawn here."""
        streams = [self._streams[key] for key in keys]
        rows = [
            stream.sampling for stream, drafted in zip(streams, drafts, strict=True) for _ in range(len(drafted) + 1)
        ]
        p = iter(_distributions(logits_RV, rows))
        return [
            self._judged(stream, drafted, list(itertools.islice(p, len(drafted) + 1)))
            for stream, drafted in zip(streams, drafts, strict=True)
        ]

    def _judged(self, stream: Stream, drafted: list[int], p_KV: list[Array]) -> list[int]:
        draft, stream.draft = stream.draft[: len(drafted)], []  # what has no room in the context is left out
        if [token for token, _ in draft] != drafted:
            raise _otherwise()
        if stream.drafted_first and not stream.passes:
            stream.passes = 1
            return stream.prompt[-1:]
        stream.passes += 1
        if stream.exact is not None:
            stream.exact.append(p_KV[0])
        finite = list(itertools.takewhile(lambda one: np.isfinite(one[1]).all(), draft))
        q_KV = [q_V for _, q_V in finite]
        try:
            tokens, kept = verify(p_KV[: len(finite) + 1], q_KV, drafted[: len(finite)], stream.generator)
        except NotFiniteError:
            stream.finish = "error"
            return [0]
        before = stream.drawn
        self._gained[stream] = stream.take(tokens)
        judged = min(kept + 1, len(finite), stream.drawn - before)
        stream.drafted += judged
        stream.accepted += min(kept, judged)
        stream.overlap += sum(float(np.minimum(p_KV[row], q_KV[row]).sum()) for row in range(judged))
        return tokens

    def _forget(self, streams: Sequence[Stream]) -> None:
        keys = [self._keys.pop(stream) for stream in streams]
        for key in keys:
            del self._streams[key]
        self._engine.drop(keys)


def _otherwise() -> HemostatError:
    return HemostatError(
        ErrorCode.ENGINE_FAILED,
        "the engine took other tokens than were drawn for it",
        hint="verified decoding does not work with this version of vLLM",
    )


def room(verifier: Verifier, prompt: Sequence[int], max_tokens: int) -> None:
    """Raises CONTEXT_EXCEEDED if prompt and answer are longer than a window may be."""
    if len(prompt) + max_tokens > verifier.length:
        raise HemostatError(
            ErrorCode.CONTEXT_EXCEEDED,
            f"the prompt has {len(prompt)} tokens and the answer may have {max_tokens}; verified decoding allows "
            f"{verifier.length} together",
            hint="shorten the prompt, or lower max_tokens",
        )


def _distributions(logits_RV: torch.Tensor, samplings: Sequence[Sampling]) -> list[Array]:
    """float64 (V,) of each row, after its own sampling."""
    by_sampling: dict[Sampling, list[int]] = {}
    for row, sampling in enumerate(samplings):
        by_sampling.setdefault(sampling, []).append(row)
    made: dict[int, Array] = {}
    for sampling, rows in by_sampling.items():
        for part in (rows[first : first + _ROWS] for first in range(0, len(rows), _ROWS)):
            made.update(zip(part, distribution(logits_RV[part].cpu(), sampling).numpy(), strict=True))
    return [made[row] for row in range(len(made))]
