"""What divergence means nothing: the noise floor of the engine, and the part of a packed candidate's that its kernels
make.

Both are measured on windows spread evenly over the corpus. The noise floor is kept with the reference: it depends on
nothing else. A tenth of the corpus shows whether it is exactly 0, as on a CPU. Only if it is not, more is measured,
which shows how large it is. That would be the largest cost of a short text beside the two passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.contracts.report import KernelTerm, NoiseFloor
from app.models.checkpoint import inspect
from workers.distributions.divergence import Precision
from workers.distributions.head import Head
from workers.distributions.reference_store import ReferenceStore, StoredHidden
from workers.distributions.token_values import Positions
from workers.engine.pool import EnginePool
from workers.engine.room import EngineRoom
from workers.engine.scoring import ScoringEngine
from workers.measuring.beside import divergence_beside
from workers.measuring.passes import States, divergence_of, score_into_store
from workers.measuring.plan import spread
from workers.measuring.sides import Side, Sides, checkpoint_store
from workers.measuring.summary import distribution
from workers.process.handler import JobContext
from workers.surgery.dequantize import dequantize
from workers.text.windows import Corpus

_SIDECAR = "noise_floor"
KERNEL_TOKENS = 4096
# So many tokens tell how large it is, one window in so many, and a few at least, whether it is 0.
_FLOOR_TOKENS = 4096
_FLOOR_PART = 10
_FLOOR_WINDOWS = 4
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Floor:
    """KL, in nats, of the reference against itself. `kl` has one value a scored position of the corpus, NaN if it
    was not measured."""

    kl: Array
    report: NoiseFloor


def windows_of(positions: Positions, chosen: Sequence[int]) -> NDArray[np.bool_]:
    """Which scored positions lie in the chosen windows."""
    return np.isin(positions.window, np.asarray(chosen))


def floor_windows(lengths: Sequence[int]) -> tuple[list[int], list[int]]:
    """Windows that show whether the noise floor is 0, and those that tell how large it is, given the tokens of each.
    One in ten, four at least, and about 4,096 tokens. Both are spread evenly; the first are no more than the second."""
    many = spread(lengths, tokens=_FLOOR_TOKENS)
    count = max(_FLOOR_WINDOWS, round(len(lengths) / _FLOOR_PART))
    if count >= len(many):
        return many, many
    return spread(lengths, tokens=round(sum(lengths) * count / len(lengths))), many


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
    pool: EnginePool,
    context: JobContext,
) -> Floor:
    """The reference against itself with one window an engine step instead of many: of a few windows, and of more where
    these are not exactly 0.

    Kept under the reference's key, since nothing else decides it.
    """
    lengths = [len(window.tokens) for window in corpus.windows]
    name = f"{_SIDECAR}-{precision}"

    def measured(chosen: list[int]) -> Array:
        values, _ = divergence_of(
            engine,
            [corpus.windows[index] for index in chosen],
            lambda index: stored.window(chosen[index]),
            divergence_beside(reference.head, reference.head, precision=precision, pool=pool),
            context=context,
            phase="noise_floor",
            batch=1,
        )
        return np.where(values.finite, values.kl, np.nan).astype(np.float64)

    few, many = floor_windows(lengths)
    kept = store.get_sidecar(key, name)
    if kept is None:
        chosen, values = few, measured(few)
        if many != few and not is_zero(values):
            chosen, values = many, measured(many)
        store.put_sidecar(key, name, {"windows": chosen, "kl": [None if np.isnan(v) else float(v) for v in values]})
    else:
        chosen, values = kept["windows"], np.asarray(kept["kl"], dtype=np.float64)
    where = windows_of(positions, chosen)
    kl = np.full(len(positions), np.nan)
    kl[where] = values
    block = distribution(values, positions.select(where))
    shapes = (min(engine.windows_per_step(max(lengths)), len(lengths)), 1)
    return Floor(kl, NoiseFloor(kl=block, tokens=int(where.sum()), batch_shapes=shapes))


def is_zero(values: Array) -> bool:
    """Whether every value is exactly 0."""
    return not np.any(values != 0)  # NaN is not 0


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
        device=room.pool.device,
        store=checkpoint_store(context),
        progress=lambda _, done, total: context.progress("kernel_term", done, total),
        check_cancelled=context.check_cancelled,
    ) as plain:
        head = Head.load(plain.path, dtype=sides.candidate.torch_dtype)
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
    pool: EnginePool,
    context: JobContext,
) -> KernelTerm:
    """KL(dequantized ‖ packed) at the chosen windows' scored positions, with the packed candidate in `engine`, or its
    hidden states over these windows from the store."""
    where = windows_of(positions, plain.chosen)
    values, _ = divergence_of(
        engine,
        [corpus.windows[index] for index in plain.chosen],
        plain.stored.window,
        divergence_beside(plain.head, sides.candidate.head, precision=precision, pool=pool),
        context=context,
        phase="kernel_term",
    )
    kl = np.where(values.finite, values.kl, np.nan)
    block = distribution(kl, positions.select(where))
    return KernelTerm(kl=block, tokens=int(where.sum()), scheme=sides.candidate.info.scheme)
