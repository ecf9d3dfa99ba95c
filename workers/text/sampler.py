"""Who draws text from the reference model.

The engine room offers a sampler; this room knows only its shape, so that text does not depend on an engine. Starting
one takes seconds and memory, and a cached self corpus needs none: `DeferredSampler` starts it at the first call.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Sampler(Protocol):
    """Draws continuations from one model."""

    def sample(
        self, prompts: list[list[int]], max_tokens: int, seed: int, temperature: float
    ) -> Sequence[Sequence[int]]:
        """For each prompt (token ids, BOS included where the model wants one) the ids drawn after it, in order.

        At most `max_tokens` each; fewer where the model ends its text. Two prompts of one call are drawn independently.
        """
        ...


@dataclass(frozen=True)
class ReferenceIdentity:
    """What a self corpus depends on beside the request: fingerprints of weights and tokenizer, engine and version."""

    weights: str
    tokenizer: str
    engine: str


class DeferredSampler:
    """A sampler that is made by `start` when it is first needed, and closed with this one if it was made."""

    def __init__(self, start: Callable[[], Sampler]) -> None:
        self._start = start
        self._sampler: Sampler | None = None

    def sample(
        self, prompts: list[list[int]], max_tokens: int, seed: int, temperature: float
    ) -> Sequence[Sequence[int]]:
        """As `Sampler.sample`."""
        if self._sampler is None:
            self._sampler = self._start()
        return self._sampler.sample(prompts, max_tokens, seed, temperature)

    def close(self) -> None:
        """Closes the sampler that was made, where it can be closed."""
        close: Callable[[], Any] | None = getattr(self._sampler, "close", None)
        self._sampler = None
        if close is not None:
            close()

    def __enter__(self) -> "DeferredSampler":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
