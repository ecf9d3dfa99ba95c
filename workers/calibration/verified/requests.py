"""Requests for verified decoding, on their way between the event loop that takes them and the thread that computes.

All that run advance together, a block a round. What no one waits for any more is dropped between rounds.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import numpy as np
from pydantic import Field

from app.contracts.base import Contract
from workers.calibration.verified.text import LONGEST_STOP, TextStream
from workers.calibration.verified.truncation import Sampling
from workers.calibration.verified.verifier import Stream, Verifier, room

Token = Annotated[int, Field(ge=0)]
StopText = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]
WAIT_S: Final = 0.2


class VerifiedRequest(Contract):
    """What the gateway asks: token ids, and how to draw."""

    prompt: Annotated[list[Token], Field(min_length=1, max_length=1_048_576)]
    max_tokens: Annotated[int, Field(ge=1, le=1_048_576)]
    fewer: bool = False  # where the context does not hold as many
    temperature: Annotated[float, Field(ge=0, le=100)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    stop_token_ids: Annotated[tuple[Token, ...], Field(max_length=64)] = ()
    stop: Annotated[tuple[StopText, ...], Field(max_length=16)] | StopText = ()
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    cache_salt: Annotated[str, Field(max_length=128)] | None = None  # of whose requests the draft may reuse prefixes


@dataclass
class Ticket:
    """One request that is being answered; `lines` gets dictionaries, the last of which has a `finish_reason`."""

    stream: Stream
    text: TextStream
    lines: asyncio.Queue[dict[str, Any]]
    loop: asyncio.AbstractEventLoop
    dropped: threading.Event = field(default_factory=threading.Event)

    def tell(self, line: dict[str, Any]) -> None:
        """Hands a line to the event loop, from any thread."""
        self.loop.call_soon_threadsafe(self.lines.put_nowait, line)


class FullError(Exception):
    """As many requests as may run or wait are there."""


class ClosedError(Exception):
    """Nothing is verified any more."""


class RequestQueue:
    """Takes requests from the event loop, and works on them in `work`, which a computing thread runs."""

    def __init__(
        self, verifier: Verifier, tokenizer: Any, *, stops: frozenset[int], running: int, waiting: int
    ) -> None:
        self.verifier = verifier
        self._tokenizer, self._stops = tokenizer, stops
        self._running, self._most = running, running + waiting
        self._tickets: list[Ticket] = []
        self._changed = threading.Condition()
        self._closed = False
        self.on_finish: Callable[[Stream], None] = lambda stream: None

    def submit(self, request: VerifiedRequest) -> Ticket:
        """Takes a request; call it in the event loop. Raises FullError, ClosedError, CONTEXT_EXCEEDED, and ValueError
        for a token that the model has not."""
        most = request.max_tokens
        if request.fewer:
            most = max(1, min(most, self.verifier.length - len(request.prompt)))
        room(self.verifier, request.prompt, most)
        vocabulary = self.verifier.info.vocabulary
        if max(request.prompt) >= vocabulary:
            raise ValueError(f"a token of the prompt is not among the model's {vocabulary}")
        ticket = Ticket(
            Stream(
                list(request.prompt),
                Sampling(request.temperature, request.top_p, request.top_k, request.min_p),
                most,
                self._stops | frozenset(request.stop_token_ids),
                np.random.default_rng(None if request.seed is None else request.seed % 2**64),
                salt=request.cache_salt,
            ),
            TextStream(
                self._tokenizer, [request.stop] if isinstance(request.stop, str) else request.stop, request.prompt
            ),
            asyncio.Queue(),
            asyncio.get_running_loop(),
        )
        with self._changed:
            if self._closed:
                raise ClosedError
            self._forget()
            if len(self._tickets) >= self._most:
                raise FullError
            self._tickets.append(ticket)
            self._changed.notify()
        return ticket

    def work(self, *, check_cancelled: Callable[[], None]) -> None:
        """Rounds, until `check_cancelled` raises. Raises what the engines raise; each waiting request learns of it
        first."""
        try:
            while True:
                check_cancelled()
                with self._changed:
                    self._forget()
                    active = self._tickets[: self._running]
                    if not active:
                        self._changed.wait(WAIT_S)
                        continue
                gained = self.verifier.round([ticket.stream for ticket in active], check_cancelled)
                for ticket, tokens in zip(active, gained, strict=True):
                    self._advance(ticket, tokens)
        finally:
            with self._changed:
                self._closed = True
                for ticket in self._tickets:
                    ticket.tell({"error": "verified decoding ended"})
                self._tickets.clear()

    def _advance(self, ticket: Ticket, tokens: list[int]) -> None:
        stream = ticket.stream
        shown = ticket.text.add(tokens)
        if ticket.text.stopped:
            stream.cut(len(tokens) - ticket.text.used)
            tokens = tokens[: ticket.text.used]
        if stream.finish is not None and not ticket.text.stopped:
            shown += ticket.text.end()
        if stream.finish == "error":
            ticket.tell({"error": "the reference's logits are not finite"})
        else:
            if tokens or shown:
                ticket.tell({"token_ids": tokens, "text": shown})
            if stream.finish is not None:
                self.on_finish(stream)  # before the client knows that it has ended, and looks
                ticket.tell(_last(stream))

    def _forget(self) -> None:
        self._tickets = [
            ticket for ticket in self._tickets if ticket.stream.finish is None and not ticket.dropped.is_set()
        ]


def _last(stream: Stream) -> dict[str, Any]:
    prompt, completion = len(stream.prompt), stream.drawn
    return {
        "finish_reason": stream.finish,
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
        "acceptance_rate": stream.acceptance_rate,
        "tokens_per_reference_pass": stream.tokens_per_pass,
    }
