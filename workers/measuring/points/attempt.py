"""One attempt at a job that measures many recipes: from its request to a runner of points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from app.contracts.request import SweptRequest
from app.recipes.recipe import Recipe
from workers.engine.room import EngineRoom
from workers.measuring.assemble import Conditions
from workers.measuring.attempt import Attempt
from workers.measuring.points.ground import Ground
from workers.measuring.points.kernels import PHASE as KERNELS
from workers.measuring.points.kernels import Kernel, KernelTerms
from workers.measuring.points.progress import Counted
from workers.measuring.points.record import PointRecord
from workers.measuring.points.runner import PHASE, PointRunner, Setting
from workers.measuring.recipes import PRECISION, Bench
from workers.measuring.sets import Part
from workers.process.handler import JobContext


class PointsAttempt(Attempt):
    """One attempt at a job that measures many recipes; see the package."""

    def __init__(self, request: SweptRequest, context: JobContext, room: EngineRoom) -> None:
        super().__init__(request, context, room)
        self._swept = request

    @contextmanager
    def ground(self, also: Sequence[Recipe] = ()) -> Iterator[Ground]:
        """Reads the text, scores the reference (or finds it in the store), checks the head, measures the noise floor.

        `also`: recipes beside the candidate's whose calibration text may not be scored either. Raises what these steps
        raise.
        """
        request = self._swept
        with self._watch.phase("text"):
            text = self._read_text()
            for recipe in also:
                self._check_overlap(text.calibration, recipe, text.documents, pointer="/candidate/recipe")
            part = Part.of(text.corpus)
        bare = request.model_copy(update={"candidate": request.candidate.model_copy(update={"recipe": ()})})
        sides = self._made(bare, text.reference, text.entry, text.origin, text.calibration)
        with sides.modified:
            run = self._reference(sides, text.corpus, PRECISION)
            yield Ground(sides, part, run, text.calibration, tuple(self._text_warnings()))

    def runner(self, ground: Ground, *, total: int) -> PointRunner:
        """What measures settings on this ground; progress counts up to `total` points."""
        progress = Counted(self._context, total=total, phase=PHASE)
        return PointRunner(
            ground,
            self.bench(ground, progress.as_context),
            self._context,
            progress,
            thresholds=self._swept.thresholds,
            seed=self._swept.seed,
        )

    def conditions(self, ground: Ground, runner: PointRunner) -> Conditions:
        """How the points were measured; what an attempt before this one had measured counts as resumed."""
        resumed = runner.resumed * len(ground.part.corpus.windows)
        return self._conditions(
            ground.run.scored, precision=PRECISION, resumed_windows=resumed, reference_context=ground.run.context
        )

    def kernels(self, ground: Ground, settings: Sequence[Setting], records: Sequence[PointRecord]) -> list[Kernel]:
        """What the kernels of packed points add, of each point in their order."""
        corpus = ground.part.corpus
        terms = KernelTerms(
            ground,
            self.bench(ground),
            self._room,
            self._store,
            self._context,
            window=self._swept.window,
            key=lambda sides, engine, weights: self._key(sides, engine, weights, corpus),
        )
        with self._watch.phase(KERNELS):
            return terms.of(settings, records)

    def bench(self, ground: Ground, context: JobContext | None = None) -> Bench:
        """What makes and measures recipes on this ground."""
        sides = ground.sides
        return self._bench(sides.reference, sides.candidate.info, sides.dtype, ground.texts, context)
