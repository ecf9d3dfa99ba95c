"""What the kernels of packed points add: KL(dequantized ‖ packed) of each, as a compare job of its recipe reports it.

It is measured after all points, in two passes: each packed checkpoint over the windows that the term is measured on,
then each one dequantized, on the reference's kernels. So no engine alternates between two packings from point to point,
which on a device that holds one engine would start two of them for each. What is scored is kept in the store: the
attempt after a lost one goes on from it.

A point whose checkpoint the store has dropped meanwhile gets no term, and a reason: making it a second time may take as
long as the sweep itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

from app.contracts.errors import HemostatError
from app.contracts.report import KernelTerm
from app.models.checkpoint import inspect
from workers.distributions.reference_store import ReferenceStore, StoredHidden
from workers.engine.room import EngineRoom
from workers.measuring.floor import KERNEL_TOKENS, kernel_term, score_dequantized
from workers.measuring.passes import StoredStates, score_into_store
from workers.measuring.plan import spread
from workers.measuring.points.ground import Ground
from workers.measuring.points.progress import Counted
from workers.measuring.points.record import PointRecord
from workers.measuring.points.runner import Setting
from workers.measuring.recipes import PRECISION, UNFORESEEN, Bench
from workers.measuring.sides import Sides
from workers.process.failures import safe_traceback, spoils
from workers.process.handler import JobContext

logger = logging.getLogger(__name__)

PHASE: Final = "kernel_term"
DROPPED: Final = (
    "its checkpoint had left the store before this was measured, and would have to be made again; a larger "
    "HEMOSTAT_CHECKPOINT_BUDGET_BYTES keeps it"
)


@dataclass(frozen=True)
class Kernel:
    """A packed point's kernel term, or why it has none. Neither: the point runs on the reference's kernels."""

    term: KernelTerm | None = None
    missing: str = ""


NO_KERNEL: Final = Kernel()


class _Steps(Counted):
    """Progress by whole steps: what is done within one begins again with each of its files and passes."""

    def progress(self, phase: str, done: int, total: int) -> None:
        self.finished(0)


class KernelTerms:
    """Measures the terms of packed points against one ground. `key` names hidden states: sides, engine, weights."""

    def __init__(
        self,
        ground: Ground,
        bench: Bench,
        room: EngineRoom,
        store: ReferenceStore,
        context: JobContext,
        *,
        window: int,
        key: Callable[[Sides, str, str], str],
    ) -> None:
        self._ground, self._bench, self._room, self._store = ground, bench, room, store
        self._context, self._window, self._key = context, window, key
        corpus = ground.part.corpus
        self._chosen = spread([len(window.tokens) for window in corpus.windows], tokens=KERNEL_TOKENS)

    def of(self, settings: Sequence[Setting], records: Sequence[PointRecord]) -> list[Kernel]:
        """Of each point, in their order. What fails here, but for the machine's memory, leaves a point without a term,
        and says why: all points are measured by then."""
        found = [NO_KERNEL for _ in settings]
        with ExitStack() as kept:
            packed: dict[int, Sides] = {}
            for index, (setting, record) in enumerate(zip(settings, records, strict=True)):
                if record.scheme in (None, "simulated") or not setting.recipe:
                    continue
                try:
                    sides = self._sides(setting, kept)
                except (HemostatError, *UNFORESEEN) as error:
                    found[index] = Kernel(missing=_why(error))
                    continue
                if sides is None:
                    found[index] = Kernel(missing=DROPPED)
                elif sides.packed:
                    packed[index] = sides
            steps = _Steps(self._context, total=2 * len(packed), phase=PHASE)
            states: dict[int, StoredHidden] = {}
            for index, sides in packed.items():
                try:
                    states[index] = self._packed(sides, steps)
                except (HemostatError, *UNFORESEEN) as error:
                    found[index] = Kernel(missing=_why(error))
                steps.finished(1)
            for index, stored in states.items():
                try:
                    # Popped: a side keeps its head once it was read, and only one at a time is needed.
                    found[index] = Kernel(self._term(packed.pop(index), stored, steps))
                except (HemostatError, *UNFORESEEN) as error:
                    found[index] = Kernel(missing=_why(error))
                stored.close()
                steps.finished(1)
        return found

    def _sides(self, setting: Setting, kept: ExitStack) -> Sides | None:
        """Reference and point, the point's checkpoint kept from eviction by `kept`; None if it is not there."""
        modified = self._bench.made(setting.recipe)
        if modified is None:
            return None
        kept.enter_context(modified)
        sides = self._ground.sides
        candidate = replace(sides.candidate, info=inspect(modified.path), weights=modified.fingerprint, _head=None)
        return replace(sides, candidate=candidate, modified=modified)

    def _packed(self, sides: Sides, steps: _Steps) -> StoredHidden:
        """The packed point's hidden states over the chosen windows."""
        key = self._key(sides, self._engine, f"{sides.candidate.weights} part")
        stored = self._store.open(key)
        if stored is not None:
            return stored
        check = self._context.check_cancelled
        engine = self._room.engine(sides.candidate.info, self._window, dtype=sides.dtype, check_cancelled=check)
        corpus = self._ground.part.corpus
        return score_into_store(
            engine,
            [corpus.windows[index] for index in self._chosen],
            store=self._store,
            key=key,
            meta={"model": sides.candidate.alias, "what": "packed"},
            context=steps.as_context,
            phase=PHASE,
        )

    def _term(self, sides: Sides, packed: StoredHidden, steps: _Steps) -> KernelTerm:
        corpus = self._ground.part.corpus
        plain = score_dequantized(
            sides,
            corpus,
            self._room,
            max_model_len=self._window,
            store=self._store,
            key=self._key(sides, self._engine, f"{sides.candidate.weights} dequantized"),
            meta={"model": sides.candidate.alias, "what": "dequantized"},
            context=steps.as_context,
        )
        term = kernel_term(
            StoredStates(packed),
            sides,
            corpus,
            self._ground.part.where,
            plain,
            precision=PRECISION,
            pool=self._room.pool,
            context=steps.as_context,
        )
        plain.stored.close()
        return term

    @property
    def _engine(self) -> str:
        return str(self._ground.run.scored.engine.identity)


def _why(error: Exception) -> str:
    """Why a point has no term, for the report. Raises the error itself if memory ran out or a GPU failed."""
    if spoils(error):
        raise error
    if isinstance(error, HemostatError):
        return error.detail
    # Not logger.exception, which would print a message that may hold text.
    logger.error("a kernel term failed\n%s", safe_traceback(error))
    return f"measuring it failed unforeseen ({type(error).__name__})"
