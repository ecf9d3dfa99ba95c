"""Log-likelihoods of choices under both models, from hidden states and heads, and the KL at the same tokens.

The reference's states come from the store or go there; the candidate's stream by. Both log-probabilities are computed
in float32: answers hang on small leads, which rounded products would toss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.answering.prompts import Prompts
from workers.distributions.reference_store import ReferenceStore
from workers.distributions.token_values import TokenValues
from workers.engine.room import EngineRoom
from workers.measuring.beside import divergence_beside
from workers.measuring.passes import divergence_of, score_into_store
from workers.measuring.plan import Scratch, plan_fingerprint
from workers.measuring.sides import Sides
from workers.process.handler import JobContext

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Likelihoods:
    """By item, one log-likelihood a choice, nats, NaN if the model's own is no number. `kl` of every scored position
    (NaN if either model's is none), which belongs to `item`. `broken`: positions without a number, of the reference
    and of the candidate."""

    reference: tuple[Array, ...]
    candidate: tuple[Array, ...]
    kl: Array
    item: NDArray[np.int64]
    broken: tuple[int, int] = (0, 0)


def likelihoods(
    prompts: Prompts, sides: Sides, *, room: EngineRoom, store: ReferenceStore, context: JobContext, scratch: str
) -> Likelihoods:
    """Scores every choice. Raises what engines raise, and `JobCancelled`."""
    length = prompts.longest
    context.progress("engine", 0, 0)
    engine = room.engine(
        sides.reference.info, length, dtype=sides.dtype, load=False, check_cancelled=context.check_cancelled
    )
    key = store.key(
        weights=sides.reference.weights,
        tokenizer=sides.tokenizer_fingerprint,
        text=prompts.fingerprint,
        window=length,
        engine=str(engine.identity),
    )
    stored = store.open(key)
    context.observe("store_hits" if stored else "store_misses", 1, store="reference")
    if stored is None:
        stored = score_into_store(
            engine,
            prompts.windows,
            store=store,
            key=key,
            meta={"model": sides.reference.alias, "what": "task"},
            context=context,
            phase="tasks",
        )
    context.progress("engine", 0, 0)
    other = room.engine(
        sides.candidate.info, length, dtype=sides.dtype, load=False, check_cancelled=context.check_cancelled
    )
    divergence = divergence_beside(sides.reference.head, sides.candidate.head, precision="float32", pool=room.pool)
    plan = plan_fingerprint([key, sides.candidate.weights, str(other.identity), "float32"])
    values, _ = divergence_of(
        other,
        prompts.windows,
        stored.window,
        divergence,
        context=context,
        phase="tasks",
        scratch=Scratch.open(context.scratch / scratch, plan),
    )
    return gathered(prompts, values)


def gathered(prompts: Prompts, values: TokenValues) -> Likelihoods:
    """Sums over each choice's tokens, by item. Each model's are numbers where its own are, whatever the other's are."""
    counts = [int(np.count_nonzero(window.scored)) for window in prompts.windows]
    row = np.repeat(np.arange(len(counts)), counts)
    item = np.asarray(prompts.item, dtype=np.int64)
    sides: list[tuple[Array, ...]] = []
    broken: list[int] = []
    for logp in (values.logp_reference, values.logp_candidate):
        told = np.where(np.isfinite(logp), logp.astype(np.float64), np.nan)
        broken.append(int(np.count_nonzero(np.isnan(told))))
        sums: Array = np.bincount(row, weights=told, minlength=len(counts)).astype(np.float64)
        # Rows come item by item.
        sides.append(tuple(np.split(sums, np.flatnonzero(np.diff(item)) + 1)))
    kl = np.where(values.finite, values.kl.astype(np.float64), np.nan)
    return Likelihoods(sides[0], sides[1], kl, item[row], (broken[0], broken[1]))
