"""Frustratingly simple decoding: the model's probability against an anti-model made of the text so far (Yang et al.
2023, arXiv 2305.12675, and the authors' published code).

Among the k most probable tokens v, the largest (1 − α)·p(v) − α·penalty(v). The text so far is prompt and continuation.

* Discrete (`fsd_d`): an interpolated n-gram model with back-off. The orders of a context are read from the longest,
  with remaining = 1 at first. Each in which v has followed adds remaining·β·count/(total + 1), and leaves
  remaining·(1 − β) to the shorter ones. The empty context adds remaining·count/total. Before n − 1 tokens there is no
  penalty.
* Vectorized (`fsd`): the largest cosine of the last n − 1 hidden states, joined, with those before any earlier place
  at which v came next. It is at least 0 and at most 1.

Names: D hidden size, K candidates, P places.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from app.contracts.decoding import Fsd, FsdD
from workers.decoding.candidates import best
from workers.decoding.model import Step
from workers.decoding.truncation import probabilities


class NGrams:
    """Which tokens followed which contexts of up to n − 1 tokens."""

    def __init__(self, n: int, beta: float, tokens: Sequence[int]) -> None:
        self._n, self._beta = n, beta
        self._text: list[int] = []
        self._following: defaultdict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for token in tokens:
            self.add(token)

    def add(self, token: int) -> None:
        """The text goes on with `token`."""
        for order in range(min(self._n, len(self._text) + 1)):
            self._following[self._context(order)][token] += 1
        self._text.append(token)

    def penalty(self, token: int) -> float:
        """How much the anti-model expects `token` next."""
        if len(self._text) < self._n - 1:
            return 0.0
        remaining, made = 1.0, 0.0
        for order in range(self._n - 1, -1, -1):
            counts = self._following.get(self._context(order))
            if counts is None or token not in counts:
                continue
            if order:
                made += remaining * self._beta * counts[token] / (counts.total() + 1)
            else:
                made += remaining * counts[token] / counts.total()
            remaining -= remaining * self._beta
        return made

    def _context(self, order: int) -> tuple[int, ...]:
        return tuple(self._text[len(self._text) - order :])


class FsdDRule:
    """The discrete form."""

    def __init__(self, decoder: FsdD) -> None:
        self._decoder = decoder
        self._ngrams: list[NGrams] = []

    def begin(self, prompts: Sequence[Sequence[int]], prompt_hidden: Sequence[torch.Tensor]) -> None:
        """The anti-model of each prompt."""
        self._ngrams = [NGrams(self._decoder.n, self._decoder.beta, prompt) for prompt in prompts]

    def choose(self, step: Step, rows: Sequence[int]) -> list[int]:
        """The best candidate of each row, which its anti-model then knows."""
        p_RK, ids_RK = candidates(step, self._decoder.k)
        tokens = []
        for row, p_K, ids_K in zip(rows, p_RK, ids_RK, strict=True):
            ngrams = self._ngrams[row]
            penalty_K = np.array([ngrams.penalty(token) for token in ids_K.tolist()])
            token = pick(p_K, ids_K, penalty_K, self._decoder.alpha)
            ngrams.add(token)
            tokens.append(token)
        return tokens


class FsdRule:
    """The vectorized form."""

    def __init__(self, decoder: Fsd) -> None:
        self._decoder = decoder
        self._places: list[Places] = []

    def begin(self, prompts: Sequence[Sequence[int]], prompt_hidden: Sequence[torch.Tensor]) -> None:
        """The hidden states of each prompt, of which the last one is that of the first step."""
        self._places = [
            Places(self._decoder.n, prompt, hidden) for prompt, hidden in zip(prompts, prompt_hidden, strict=True)
        ]

    def choose(self, step: Step, rows: Sequence[int]) -> list[int]:
        """The best candidate of each row."""
        p_RK, ids_RK = candidates(step, self._decoder.k)
        tokens = []
        for row, hidden_D, p_K, ids_K in zip(rows, step.hidden_RD, p_RK, ids_RK, strict=True):
            places = self._places[row]
            token = pick(p_K, ids_K, places.penalty(hidden_D, ids_K), self._decoder.alpha)
            places.add(token)
            tokens.append(token)
        return tokens


class Places:
    """The hidden states before each place of one text, normalized, and the token that came next there."""

    def __init__(self, n: int, tokens: Sequence[int], hidden_LD: torch.Tensor) -> None:
        self._width = n - 1
        hidden_LD = hidden_LD.detach().float().cpu()
        self._last: list[torch.Tensor] = list(hidden_LD[:-1][-(self._width - 1) :]) if self._width > 1 else []
        ends = range(self._width - 1, len(hidden_LD) - 1)
        self._keys = [_normal(hidden_LD[end - self._width + 1 : end + 1].flatten()) for end in ends]
        self._next = [int(tokens[end + 1]) for end in ends]
        self._pending: torch.Tensor | None = None

    def penalty(self, hidden_D: torch.Tensor, ids_K: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of each candidate, where `hidden_D` is the state at the end of the text."""
        window = [*self._last, hidden_D.detach().float().cpu()]
        made_K = np.zeros(len(ids_K))
        self._pending = None
        if len(window) == self._width:
            self._pending = _normal(torch.cat(window))
            if self._keys:
                cosine_P = (torch.stack(self._keys) @ self._pending).double().numpy()
                next_P = np.array(self._next)
                for at, token in enumerate(ids_K.tolist()):
                    made_K[at] = cosine_P.max(where=next_P == token, initial=0.0)
        if self._width > 1:
            self._last = window[-(self._width - 1) :]
        return made_K.clip(0.0, 1.0)

    def add(self, token: int) -> None:
        """`token` came next at the end of the text."""
        if self._pending is not None:
            self._keys.append(self._pending)
            self._next.append(token)


def candidates(step: Step, k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(probabilities, ids), each (R, K), of the most probable tokens."""
    p_RK, ids_RK = best(probabilities(step.logits_RV), k)
    return p_RK.double().cpu().numpy(), ids_RK.cpu().numpy()


def pick(p_K: NDArray[np.float64], ids_K: NDArray[np.int64], penalty_K: NDArray[np.float64], alpha: float) -> int:
    """The candidate of the largest (1 − α)·p − α·penalty; of equal ones the most probable."""
    return int(ids_K[int(np.argmax((1 - alpha) * p_K - alpha * penalty_K))])


def _normal(vector: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = torch.nn.functional.normalize(vector, dim=0)
    return made
