"""Decoders that take one token after another: greedy, the samplers and mirostat.

Names: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from app.contracts.decoding import Shaping
from workers.decoding.model import Step
from workers.decoding.truncation import shaped
from workers.decoding.uniforms import inverse_cdf, uniforms


class Rule(Protocol):
    """Takes the next token of each row. What it remembers is of prompts, by their place in the batch."""

    def begin(self, prompts: Sequence[Sequence[int]], prompt_hidden: Sequence[torch.Tensor]) -> None:
        """Told once, before the first token: tokens and (L, D) hidden states of each prompt."""

    def choose(self, step: Step, rows: Sequence[int]) -> list[int]:
        """The token of each row of `step`; `rows` says which prompt each belongs to."""


class GreedyRule:
    """argmax of the logits; of equal ones the lowest id."""

    def begin(self, prompts: Sequence[Sequence[int]], prompt_hidden: Sequence[torch.Tensor]) -> None:
        """Nothing is remembered."""

    def choose(self, step: Step, rows: Sequence[int]) -> list[int]:
        """The most probable token of each row."""
        return [int(token) for token in step.logits_RV.argmax(1)]


class Draws:
    """The uniforms of each prompt's steps; `keys` name the prompts in the stream of `seed`."""

    def __init__(self, seed: int, keys: Sequence[int], steps: int) -> None:
        self._u = [uniforms(seed, key, steps) for key in keys]

    def of(self, places: Sequence[tuple[int, int]]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """u of each (prompt, step)."""
        return np.array([self._u[prompt][step] for prompt, step in places], dtype=np.float64)


class SamplingRule:
    """Draws from the shaped distribution by common random numbers."""

    def __init__(self, shaping: Shaping, draws: Draws) -> None:
        self._shaping, self._draws = shaping, draws
        self._steps: dict[int, int] = {}

    def begin(self, prompts: Sequence[Sequence[int]], prompt_hidden: Sequence[torch.Tensor]) -> None:
        """Every prompt is at its first step."""
        self._steps = dict.fromkeys(range(len(prompts)), 0)

    def choose(self, step: Step, rows: Sequence[int]) -> list[int]:
        """One draw a row."""
        places = [(row, self._steps[row]) for row in rows]
        for row in rows:
            self._steps[row] += 1
        return drawn(step.logits_RV, self._shaping, self._draws, places)


def drawn(logits_RV: torch.Tensor, shaping: Shaping, draws: Draws, places: Sequence[tuple[int, int]]) -> list[int]:
    """A token of each row, of a prompt at a step: the same wherever the logits come from."""
    return inverse_cdf(shaped(logits_RV, shaping), draws.of(places))
