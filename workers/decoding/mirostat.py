"""Mirostat: top-k whose k follows a target surprise (Basu et al. 2021, arXiv 2007.14966, algorithm 1).

At first μ = 2τ. Each step estimates Zipf's exponent from the m most probable tokens: ŝ = Σ tᵢbᵢ / Σ tᵢ². Here
tᵢ = ln((i+1)/i), bᵢ = ln(pᵢ/pᵢ₊₁), i = 1 … m−1. With ε = ŝ − 1 and N tokens, k = (ε·2^μ / (1 − N^−ε))^(1/ŝ), rounded,
between 1 and N. A token X is drawn from the k most probable ones. Its surprise S = −log₂ p(X), in bits, is that of the
whole distribution. Then μ ← μ − η(S − τ).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from app.contracts.decoding import Mirostat
from workers.decoding.candidates import best
from workers.decoding.model import Step
from workers.decoding.rules import Draws
from workers.decoding.truncation import probabilities, top_k
from workers.decoding.uniforms import inverse_cdf

# An exponent of 0, a flat head, would put every or no token into the head.
_LEAST_EXPONENT = 1e-6


class MirostatRule:
    """One μ a prompt, in bits."""

    def __init__(self, decoder: Mirostat, draws: Draws) -> None:
        self._decoder, self._draws = decoder, draws
        self._steps: list[int] = []
        self.mu: list[float] = []

    def begin(self, prompts: Sequence[Sequence[int]], prompt_hidden: Sequence[torch.Tensor]) -> None:
        """μ = 2τ for each prompt."""
        self.mu = [2 * self._decoder.tau] * len(prompts)
        self._steps = [0] * len(prompts)

    def choose(self, step: Step, rows: Sequence[int]) -> list[int]:
        """One draw a row, after which its μ has moved."""
        p_RV = probabilities(step.logits_RV, self._decoder.temperature)
        head_RM = best(p_RV, self._decoder.m)[0].double().clamp(min=torch.finfo(torch.float64).tiny).log().cpu().numpy()
        sizes = [size(zipf(head_M), self.mu[row], p_RV.shape[1]) for row, head_M in zip(rows, head_RM, strict=True)]
        left_RV = torch.cat([top_k(p_RV[at : at + 1], k) for at, k in enumerate(sizes)])
        tokens = inverse_cdf(left_RV, self._draws.of([(row, self._steps[row]) for row in rows]))
        for at, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            surprise = -math.log2(float(p_RV[at, token]))
            self.mu[row] -= self._decoder.rate * (surprise - self._decoder.tau)
            self._steps[row] += 1
        return tokens


def zipf(log_p_M: NDArray[np.float64]) -> float:
    """ŝ of log-probabilities in descending order."""
    rank = np.arange(1, len(log_p_M), dtype=np.float64)
    t, b = np.log((rank + 1) / rank), log_p_M[:-1] - log_p_M[1:]
    return float((t * b).sum() / (t * t).sum()) if len(rank) else 0.0


def size(exponent: float, mu: float, vocabulary: int) -> int:
    """k for a target surprise of `mu` bits under Zipf's law, between 1 and the vocabulary."""
    exponent = max(exponent, _LEAST_EXPONENT)
    epsilon = exponent - 1
    log_n = math.log(vocabulary)
    # ε / (1 − N^−ε) is positive on both sides of ε = 0, where it is 1 / ln N.
    share = 1 / log_n if abs(epsilon * log_n) < 1e-9 else epsilon / -math.expm1(-epsilon * log_n)
    log_k = (math.log(share) + mu * math.log(2)) / exponent
    return max(1, min(vocabulary, round(math.exp(min(log_k, log_n)))))
