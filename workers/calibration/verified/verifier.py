"""Rounds of verified decoding: every stream gets a block drafted by the candidate and verified by the reference.

The reference has no memory of the prefix here: `token_embed` computes the whole window again in each round, so a round
costs a pass over the prefixes of all its streams, and `length` bounds them.

Names: K drafted tokens, R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo
from workers.calibration.verified.speculative import draw, verify
from workers.calibration.verified.truncation import Sampling, distribution
from workers.distributions.head import Head
from workers.engine.drafting import DraftEngine
from workers.engine.launch import never
from workers.engine.scoring import ScoringEngine

Array = NDArray[np.float64]

BLOCK: Final = 4
# Rows whose distributions are made at once: float64 over the vocabulary, a few times over.
_ROWS: Final = 64


@dataclass
class Stream:
    """One answer on its way. `stops` are the token ids that end it; the same seed gives the same answer again."""

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
    finish: str | None = None

    @property
    def acceptance_rate(self) -> float | None:
        """Mean of 1 − TV(p, q), the probability of keeping a drafted token, over the positions that were judged."""
        return self.overlap / self.drafted if self.drafted else None

    @property
    def tokens_per_pass(self) -> float | None:
        """Tokens that came out, for each pass of the reference."""
        return len(self.output) / self.passes if self.passes else None

    def take(self, tokens: Sequence[int]) -> list[int]:
        """Adds tokens up to the first that ends the answer; those that were added, the end left out."""
        added: list[int] = []
        for token in tokens:
            if token in self.stops:
                self.finish = "stop"
                break
            added.append(token)
            self.output.append(token)
            if len(self.output) >= self.max_tokens:
                self.finish = "length"
                break
        return added


class Verifier:
    """Two engines and a head. `draft` must have been made with `board.draw` of `board`."""

    def __init__(
        self, draft: DraftEngine, board: Board, reference: ScoringEngine, head: Head, *, block: int = BLOCK
    ) -> None:
        self._draft, self._board, self._reference, self._head = draft, board, reference, head
        self.block = block
        self.length = min(draft.length, reference.max_model_len)

    @property
    def info(self) -> CheckpointInfo:
        """The reference."""
        return self._reference.info

    def round(self, streams: Sequence[Stream], check_cancelled: Callable[[], None] = never) -> list[list[int]]:
        """One block for each stream; the tokens that each gained. Streams must not be finished.

        A stream whose reference distribution is not finite ends as `error`. Raises what the engines raise.
        """
        drafts, rows_q = self._drafts(streams, check_cancelled)
        windows = [stream.prompt + stream.output + draft for stream, draft in zip(streams, drafts, strict=True)]
        p = self.reference(
            windows, [len(draft) + 1 for draft in drafts], [s.sampling for s in streams], check_cancelled
        )
        gained: list[list[int]] = []
        for stream, draft, q_KV, p_KV in zip(streams, drafts, rows_q, p, strict=True):
            stream.passes += 1
            try:
                tokens, kept = verify(p_KV, q_KV, draft, stream.generator)
            except ValueError:
                stream.finish = "error"
                gained.append([])
                continue
            judged = min(kept + 1, len(draft))
            stream.drafted += judged
            stream.accepted += kept
            stream.overlap += sum(float(np.minimum(p_KV[row], q_KV[row]).sum()) for row in range(judged))
            gained.append(stream.take(tokens))
        return gained

    def reference(
        self,
        windows: Sequence[Sequence[int]],
        counts: Sequence[int],
        samplings: Sequence[Sampling],
        check_cancelled: Callable[[], None] = never,
    ) -> list[Array]:
        """The reference's distributions at the last `count` positions of each window, after the request's sampling."""
        hidden_RD = []
        for index, hidden_TD in self._reference.score(list(windows), check_cancelled=check_cancelled):
            hidden_RD.append(hidden_TD[-counts[index] :].clone())
        return [
            _distributions(self._head, states_RD, sampling)
            for states_RD, sampling in zip(hidden_RD, samplings, strict=True)
        ]

    def _drafts(
        self, streams: Sequence[Stream], check_cancelled: Callable[[], None]
    ) -> tuple[list[list[int]], list[list[Array]]]:
        # One token comes from the reference whatever is drafted.
        counts = [min(self.block, stream.max_tokens - len(stream.output) - 1) for stream in streams]
        asked = [index for index, count in enumerate(counts) if count > 0]
        self._board.begin({index: streams[index] for index in asked})
        drafts: list[list[int]] = [[] for _ in streams]
        if asked:
            prompts = [streams[index].prompt + streams[index].output for index in asked]
            blocks = self._draft.block(prompts, asked, [counts[index] for index in asked], check_cancelled)
            for index, tokens in zip(asked, blocks, strict=True):
                # A candidate whose logits were not finite drafted nothing from there on.
                drafts[index] = tokens[: len(self._board.rows[index])]
        return drafts, [self._board.rows.get(index, []) for index in range(len(streams))]


class Board:
    """Where the draft's logits become tokens, and what they were drawn from is kept until it is verified."""

    def __init__(self) -> None:
        self.rows: dict[int, list[Array]] = {}
        self._streams: Mapping[int, Stream] = {}
        self._broken: set[int] = set()

    def begin(self, streams: Mapping[int, Stream]) -> None:
        """A round of these streams, by their keys."""
        self._streams = streams
        self.rows = {key: [] for key in streams}
        self._broken = set()

    def draw(self, logits_RV: torch.Tensor, keys: Sequence[int]) -> list[int]:
        """A token for each row, by the sampling and the generator of the row's stream."""
        tokens = []
        by_sampling: dict[Sampling, list[int]] = {}
        for row, key in enumerate(keys):
            by_sampling.setdefault(self._streams[key].sampling, []).append(row)
        q: dict[int, Array] = {}
        for sampling, rows in by_sampling.items():
            for begin in range(0, len(rows), _ROWS):
                part = rows[begin : begin + _ROWS]
                q_RV = distribution(logits_RV[part].cpu(), sampling).numpy()
                q.update(zip(part, q_RV, strict=True))
        for row, key in enumerate(keys):
            q_V = q[row]
            if key in self._broken or not np.isfinite(q_V).all():
                self._broken.add(key)
                tokens.append(0)
                continue
            self.rows[key].append(q_V)
            tokens.append(draw(q_V, self._streams[key].generator))
        return tokens


def room(verifier: Verifier, prompt: Sequence[int], max_tokens: int) -> None:
    """Raises CONTEXT_EXCEEDED where prompt and answer are longer than a window may be."""
    if len(prompt) + max_tokens > verifier.length:
        raise HemostatError(
            ErrorCode.CONTEXT_EXCEEDED,
            f"the prompt has {len(prompt)} tokens and the answer may have {max_tokens}; verified decoding takes "
            f"{verifier.length} together",
            hint="shorten the prompt, or lower max_tokens",
        )


def _distributions(head: Head, hidden_RD: torch.Tensor, sampling: Sampling) -> Array:
    parts: list[Any] = [
        distribution(head.logits(part_RD).cpu(), sampling).numpy() for part_RD in torch.split(hidden_RD, _ROWS)
    ]
    return np.concatenate(parts)
