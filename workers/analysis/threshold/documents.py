"""What other documents of the same kind would have given: every measured setting resampled jointly over documents.

All settings are scored on the same documents, so their values rise and fall together when documents change. Drawing
whole documents, the same draw for every setting, keeps that; treating the points as independent would not. The model's
form is held fixed: this is the error of a finite text, not that of the form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from workers.analysis.threshold import published
from workers.analysis.threshold.bounds import Bounds
from workers.analysis.threshold.curve import Array, Curve
from workers.analysis.threshold.interval import CONFIDENCE, KneeInterval

Quantity = Literal["perplexity", "divergence"]

FEWEST_DOCUMENTS = 6
RESAMPLES = 1999
_GRID = 288


@dataclass(frozen=True)
class DocumentLosses:
    """Sums over the scored tokens of each document, in nats.

    `sum_PD`: for a perplexity the negative log-likelihoods, for a divergence the divergences, of P settings (in rising
    order of s where they belong to a curve) and D documents. `tokens_D`: scored tokens of each document.
    """

    sum_PD: Array
    tokens_D: Array
    quantity: Quantity = "perplexity"

    @classmethod
    def of(cls, sums: ArrayLike, tokens: ArrayLike, quantity: Quantity = "perplexity") -> DocumentLosses:
        """Checked. Raises ValueError for shapes that do not fit, too few documents, no tokens, values not finite."""
        sum_PD, tokens_D = np.asarray(sums, dtype=np.float64), np.asarray(tokens, dtype=np.float64)
        if sum_PD.ndim != 2 or tokens_D.shape != sum_PD.shape[1:]:
            raise ValueError(f"sums have shape {sum_PD.shape}, tokens {tokens_D.shape}; (P, D) and (D,) are needed")
        if len(tokens_D) < FEWEST_DOCUMENTS:
            raise ValueError(f"{len(tokens_D)} documents; at least {FEWEST_DOCUMENTS} are needed")
        if not (tokens_D > 0).all() or not np.isfinite(sum_PD).all() or not np.isfinite(tokens_D).all():
            raise ValueError("every document has tokens, and every sum is finite")
        return cls(sum_PD, tokens_D, quantity)

    def logs(self, weight_BD: Array | None = None) -> Array:
        """Logarithm of the value of each setting: (P,), or (B, P) with documents counted by `weight_BD`."""
        weight_BD = np.ones((1, len(self.tokens_D))) if weight_BD is None else weight_BD
        mean_BP = (weight_BD @ self.sum_PD.T) / (weight_BD @ self.tokens_D)[:, None]
        log_BP = mean_BP if self.quantity == "perplexity" else np.log(np.maximum(mean_BP, np.finfo(np.float64).tiny))
        return np.asarray(log_BP if len(weight_BD) > 1 else log_BP[0])

    def draws(self, *, seed: int, resamples: int) -> Array:
        """How often each document comes in each draw of as many documents as there are: (B, D)."""
        count = len(self.tokens_D)
        rng = np.random.default_rng(seed)
        return rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)


def document_interval(
    s: ArrayLike,
    losses: DocumentLosses,
    bounds: Bounds,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> KneeInterval:
    """The 95 % interval of s0 over documents: percentiles of the best knees of curves of resampled documents.

    Percentiles, because the knee's distribution has kinks and atoms, at points and at bounds. Corrections built on
    smoothness (BCa) take these for bias: they covered 65 % where percentiles covered 95 %.

    `s` are the P settings in rising order. Raises ValueError if they and the losses differ in number.
    """
    s_P = np.asarray(s, dtype=np.float64)
    if s_P.shape != losses.sum_PD.shape[:1]:
        raise ValueError(f"{s_P.size} settings and losses of {len(losses.sum_PD)}")
    if (np.diff(s_P) <= 0).any():
        raise ValueError("the settings stand in rising order")
    curve = Curve.of(s_P, np.exp(losses.logs()))
    search = published.search(curve, bounds)
    fit = published.fit(curve, bounds)
    knee_G = np.unique(np.append(search.grid(s_P, size=_GRID), fit.s0))
    drawn_BP = losses.logs(losses.draws(seed=seed, resamples=resamples))
    design_B, _, _ = search.designs(s_P, knee_G).best(drawn_BP)
    tail = 0.5 * (1 - CONFIDENCE)
    low, high = np.quantile(knee_G[design_B], [tail, 1 - tail])
    return KneeInterval(min(float(low), fit.s0), max(float(high), fit.s0), (search.low, search.high))
