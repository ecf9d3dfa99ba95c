"""Rounds of verified decoding: every stream gets a block drafted by the candidate and verified by the reference.

The reference has no memory of the prefix here: `token_embed` computes the whole window again in each round, so a round
costs a pass over the prefixes of all its streams, and `length` bounds them.

Names: K drafted tokens, R rows, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
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
from workers.engine.drafting import DraftEngine
from workers.engine.launch import never
from workers.engine.scoring import ScoringEngine

Array = NDArray[np.float64]

BLOCK: Final = 4
# Rows whose distributions are made at once: float64 over the vocabulary, a few times over.
_ROWS: Final = 64
# Rows whose logits, in float32, are made at once.
_HEAD_ROWS: Final = 256


@dataclass
class Stream:
    """One answer on its way. `stops` are the token ids that end it; the same seed gives the same answer again.

    `drafted`, `accepted` and `overlap` count the drafted tokens that were judged and belong to the answer.
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
    draft: Sampling | None = None  # how the candidate draws, where not as the answer: exactness does not depend on it
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
    """Two engines and a head. `draft` must have been made with `board.draw` of `board`."""

    def __init__(
        self, draft: DraftEngine, board: Board, reference: ScoringEngine, head: Head, *, block: int = BLOCK
    ) -> None:
        self._draft, self._board, self._reference, self._head = draft, board, reference, head
        self.block = block
        self.drafted_from: list[list[Array]] = []  # of the last round: q at each drafted token of each stream
        self.length = min(draft.length, reference.max_model_len)

    @property
    def info(self) -> CheckpointInfo:
        """The reference."""
        return self._reference.info

    def round(self, streams: Sequence[Stream], check_cancelled: Callable[[], None] = never) -> list[list[int]]:
        """One block for each stream; the tokens that each gained. Streams must not be finished.

        A stream whose reference distribution is not finite ends as `error`. Raises what the engines raise, and
        ENGINE_FAILED if the candidate's engine took other tokens than were drawn.
        """
        drafts, self.drafted_from = self._drafts(streams, check_cancelled)
        windows = [stream.prompt + stream.output + draft for stream, draft in zip(streams, drafts, strict=True)]
        p = self.reference(
            windows, [len(draft) + 1 for draft in drafts], [s.sampling for s in streams], check_cancelled
        )
        gained: list[list[int]] = []
        for stream, draft, q_KV, p_KV in zip(streams, drafts, self.drafted_from, p, strict=True):
            stream.passes += 1
            try:
                tokens, kept = verify(p_KV, q_KV, draft, stream.generator)
            except NotFiniteError:
                stream.finish = "error"
                gained.append([])
                continue
            before = stream.drawn
            gained.append(stream.take(tokens))
            judged = min(kept + 1, len(draft), stream.drawn - before)
            stream.drafted += judged
            stream.accepted += min(kept, judged)
            stream.overlap += sum(float(np.minimum(p_KV[row], q_KV[row]).sum()) for row in range(judged))
        return gained

    def reference(
        self,
        windows: Sequence[Sequence[int]],
        counts: Sequence[int],
        samplings: Sequence[Sampling],
        check_cancelled: Callable[[], None] = never,
    ) -> list[list[Array]]:
        """The reference's distributions at the last `count` positions of each window, after the request's sampling."""
        hidden = []
        for index, hidden_TD in self._reference.score(list(windows), check_cancelled=check_cancelled):
            hidden.append(hidden_TD[-counts[index] :].clone())
        rows = [sampling for sampling, count in zip(samplings, counts, strict=True) for _ in range(count)]
        p = _distributions(torch.cat(hidden), self._head.logits, rows)
        ends = itertools.accumulate(counts)
        return [p[end - count : end] for end, count in zip(ends, counts, strict=True)]

    def _drafts(
        self, streams: Sequence[Stream], check_cancelled: Callable[[], None]
    ) -> tuple[list[list[int]], list[list[Array]]]:
        # One token comes from the reference whatever is drafted.
        counts = [min(self.block, stream.max_tokens - stream.drawn - 1) for stream in streams]
        asked = [index for index, count in enumerate(counts) if count > 0]
        drafts: list[list[int]] = [[] for _ in streams]
        rows: list[list[Array]] = [[] for _ in streams]
        if not asked:
            return drafts, rows
        self._board.begin(
            {
                index: (stream.draft or stream.sampling, stream.generator.random(counts[index]))
                for index, stream in enumerate(streams)
                if counts[index] > 0
            }
        )
        prompts = [streams[index].prompt + streams[index].output for index in asked]
        salts = [streams[index].salt for index in asked]
        blocks = self._draft.block(prompts, asked, [counts[index] for index in asked], check_cancelled, salts=salts)
        for index, tokens in zip(asked, blocks, strict=True):
            drafts[index], rows[index] = self._board.block(index, tokens)
        return drafts, rows


class Board:
    """Where the draft's logits become tokens, and what they were drawn from is kept until it is verified.

    The place of a token in its block decides which uniform number it is drawn with. The engine may ask for a place more
    than once, and only its last answer counts.
    """

    def __init__(self) -> None:
        self._asked: Mapping[int, tuple[Sampling, Array]] = {}
        self._drawn: dict[int, list[tuple[int, Array]]] = {}

    def begin(self, streams: Mapping[int, tuple[Sampling, Array]]) -> None:
        """A round of streams, by their keys: how each is drawn, and a uniform number for each token of its block."""
        self._asked = streams
        self._drawn = {key: [] for key in streams}

    def draw(self, logits_RV: torch.Tensor, places: Sequence[tuple[int, int]]) -> list[int]:
        """A token for each row, whose place is a stream's key and how many tokens of the block came before."""
        rows = [self._asked[key][0] for key, _ in places]
        q_RV = _distributions(logits_RV, lambda part_RV: part_RV, rows)
        tokens = []
        for q_V, (key, place) in zip(q_RV, places, strict=True):
            try:
                token = draw(q_V, float(self._asked[key][1][place]))
            except NotFiniteError:
                token = 0  # `block` ends before it
            drawn = self._drawn[key]
            del drawn[place:]
            drawn.append((token, q_V))
            tokens.append(token)
        return tokens

    def block(self, key: int, tokens: Sequence[int]) -> tuple[list[int], list[Array]]:
        """The engine's tokens for this key, and the distribution that each was drawn from.

        A candidate whose logits were not finite drafted nothing from there on. Raises ENGINE_FAILED if the tokens
        are not the drawn ones: what came out would not be what is promised.
        """
        drawn = self._drawn[key]
        if [token for token, _ in drawn] != list(tokens):
            raise HemostatError(
                ErrorCode.ENGINE_FAILED,
                "the candidate's engine took other tokens than were drawn for it",
                hint="verified decoding does not work with this version of vLLM",
            )
        finite = list(itertools.takewhile(lambda one: np.isfinite(one[1]).all(), drawn))
        return [token for token, _ in finite], [q_V for _, q_V in finite]


def room(verifier: Verifier, prompt: Sequence[int], max_tokens: int) -> None:
    """Raises CONTEXT_EXCEEDED if prompt and answer are longer than a window may be."""
    if len(prompt) + max_tokens > verifier.length:
        raise HemostatError(
            ErrorCode.CONTEXT_EXCEEDED,
            f"the prompt has {len(prompt)} tokens and the answer may have {max_tokens}; verified decoding takes "
            f"{verifier.length} together",
            hint="shorten the prompt, or lower max_tokens",
        )


def _distributions(
    states: torch.Tensor, logits: Callable[[torch.Tensor], torch.Tensor], samplings: Sequence[Sampling]
) -> list[Array]:
    """float64 (V,) of each row: what `logits` makes of its state, after its own sampling."""
    found: list[Array] = []
    for begin in range(0, len(samplings), _HEAD_ROWS):
        logits_RV = logits(states[begin : begin + _HEAD_ROWS]).cpu()
        by_sampling: dict[Sampling, list[int]] = {}
        for row, sampling in enumerate(samplings[begin : begin + _HEAD_ROWS]):
            by_sampling.setdefault(sampling, []).append(row)
        made: dict[int, Array] = {}
        for sampling, rows in by_sampling.items():
            for part in (rows[first : first + _ROWS] for first in range(0, len(rows), _ROWS)):
                made.update(zip(part, distribution(logits_RV[part], sampling).numpy(), strict=True))
        found += [made[row] for row in range(len(made))]
    return found
