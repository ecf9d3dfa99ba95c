"""What divergence means nothing: the noise floor of the engine, and the part of a packed candidate's that its kernels
make.

Both are measured on windows spread evenly over the corpus. The noise floor is kept with the reference: it depends on
nothing else. It takes a tenth of the corpus: the same engine's steps of other shapes differ by nothing on a CPU and by
rounding on a GPU, so that a part shows it, and of a short text more than that would be the largest cost beside the two
passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contracts.report import KernelTerm, NoiseFloor
from app.models.checkpoint import inspect
from workers.diagnosis.context import JobContext
from workers.diagnosis.passes import States, divergence_of, score_into_store
from workers.diagnosis.plan import spread
from workers.diagnosis.sides import Side, Sides, checkpoint_store
from workers.diagnosis.summary import distribution
from workers.distributions.divergence import Divergence, Precision
from workers.distributions.head import Head
from workers.distributions.reference_store import ReferenceStore, StoredHidden
from workers.distributions.token_values import Positions
from workers.engine.room import EngineRoom
from workers.engine.scoring import ScoringEngine
from workers.surgery.dequantize import dequantize
from workers.text.windows import Corpus

_SIDECAR = "noise_floor"
KERNEL_TOKENS = 4096
# One part in so many of the corpus, but enough windows for an interval, and no more tokens than tell.
_FLOOR_PART = 10
_FLOOR_WINDOWS = 4
_FLOOR_TOKENS = 4096
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Floor:
    """KL, in nats, of the reference against itself. `kl` has one value a scored position of the corpus, NaN where it
    was not measured."""

    kl: Array
    report: NoiseFloor


def windows_of(positions: Positions, chosen: Sequence[int]) -> NDArray[np.bool_]:
    """Which scored positions lie in the chosen windows."""
    return np.isin(positions.window, np.asarray(chosen))


def floor_windows(lengths: Sequence[int]) -> list[int]:
    """Windows that the noise floor is measured on, given the tokens of each, spread evenly over the text: about a tenth
    of its tokens, at least four of the longest windows, at most 4,096 tokens; never none."""
    tokens = max(sum(lengths) // _FLOOR_PART, _FLOOR_WINDOWS * max(lengths))
    return spread(lengths, tokens=min(tokens, _FLOOR_TOKENS))


def noise_floor(
    engine: ScoringEngine,
    reference: Side,
    corpus: Corpus,
    positions: Positions,
    stored: StoredHidden,
    *,
    store: ReferenceStore,
    key: str,
    precision: Precision,
    context: JobContext,
) -> Floor:
    """The reference against itself with one window an engine step instead of many.

    Kept under the reference's key, since nothing else decides it.
    """
    lengths = [len(window.tokens) for window in corpus.windows]
    chosen = floor_windows(lengths)
    where = windows_of(positions, chosen)
    name = f"{_SIDECAR}-{precision}"
    kept = store.get_sidecar(key, name)
    shapes = (engine.windows_per_step(max(lengths)), 1)
    if kept is not None and kept.get("windows") == chosen and len(kept["kl"]) == int(where.sum()):
        values = np.asarray(kept["kl"], dtype=np.float64)
    else:
        divergence = Divergence(reference.head, reference.head, precision=precision)
        windows = [corpus.windows[index] for index in chosen]
        measured, _ = divergence_of(
            engine,
            windows,
            lambda index: stored.window(chosen[index]),
            divergence,
            context=context,
            phase="noise_floor",
            batch=1,
        )
        values = np.where(measured.finite, measured.kl, np.nan).astype(np.float64)
        sidecar: dict[str, Any] = {"windows": chosen, "kl": [None if np.isnan(v) else float(v) for v in values]}
        store.put_sidecar(key, name, sidecar)
    kl = np.full(len(positions), np.nan)
    kl[where] = values
    block = distribution(values, positions.document[where], positions.window[where])
    return Floor(kl, NoiseFloor(kl=block, tokens=int(where.sum()), batch_shapes=shapes))


@dataclass(frozen=True)
class Dequantized:
    """A packed candidate's weights on the reference's kernels: hidden states of the chosen windows, and their head."""

    chosen: list[int]
    stored: StoredHidden
    head: Head


def score_dequantized(
    sides: Sides,
    corpus: Corpus,
    room: EngineRoom,
    *,
    max_model_len: int,
    store: ReferenceStore,
    key: str,
    meta: dict[str, object],
    context: JobContext,
) -> Dequantized:
    """Runs the candidate, dequantized, on the reference's kernels, over windows spread over the corpus."""
    chosen = spread([len(window.tokens) for window in corpus.windows], tokens=KERNEL_TOKENS)
    with dequantize(
        sides.candidate.info,
        store=checkpoint_store(context),
        progress=lambda _, done, total: context.progress("kernel_term", done, total),
        check_cancelled=context.check_cancelled,
    ) as plain:
        head = Head.load(plain.path)
        stored = store.open(key)
        if stored is None:
            engine = room.engine(
                inspect(plain.path), max_model_len, dtype=sides.dtype, check_cancelled=context.check_cancelled
            )
            windows = [corpus.windows[index] for index in chosen]
            stored = score_into_store(
                engine, windows, store=store, key=key, meta=meta, context=context, phase="kernel_term"
            )
    return Dequantized(chosen, stored, head)


def kernel_term(
    engine: States,
    sides: Sides,
    corpus: Corpus,
    positions: Positions,
    plain: Dequantized,
    *,
    precision: Precision,
    context: JobContext,
) -> KernelTerm:
    """KL(dequantized ‖ packed) at the chosen windows' scored positions, with the packed candidate in `engine`, or its
    hidden states over these windows from the store."""
    where = windows_of(positions, plain.chosen)
    values, _ = divergence_of(
        engine,
        [corpus.windows[index] for index in plain.chosen],
        plain.stored.window,
        Divergence(plain.head, sides.candidate.head, precision=precision),
        context=context,
        phase="kernel_term",
    )
    kl = np.where(values.finite, values.kl, np.nan)
    block = distribution(kl, positions.document[where], positions.window[where])
    return KernelTerm(kl=block, tokens=int(where.sum()), scheme=sides.candidate.info.scheme)
