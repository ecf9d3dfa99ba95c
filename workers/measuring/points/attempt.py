"""One attempt at a job that measures many recipes: from its request to a runner of points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from app.contracts.request import SweptRequest
from app.models.registry import load_registry
from app.models.steps.others import other_of
from app.recipes.recipe import Recipe
from workers.engine.room import EngineRoom
from workers.measuring.attempt import Attempt
from workers.measuring.calibration_text import CalibrationLoader, looked_at, reads_text
from workers.measuring.floor import noise_floor
from workers.measuring.long_context import cut, reference_limit
from workers.measuring.points.ground import Ground
from workers.measuring.points.kernels import PHASE as KERNELS
from workers.measuring.points.kernels import Kernel, KernelTerms
from workers.measuring.points.progress import Counted
from workers.measuring.points.record import PointRecord
from workers.measuring.points.runner import PHASE, PointRunner, Setting
from workers.measuring.positions import positions_of
from workers.measuring.recipes import PRECISION, Bench
from workers.measuring.sets import Part
from workers.measuring.sides import modify, resolve
from workers.process.handler import JobContext
from workers.text.documents import TextDocument


class PointsAttempt(Attempt):
    """One attempt at a job that measures many recipes; see the package."""

    def __init__(self, request: SweptRequest, context: JobContext, room: EngineRoom) -> None:
        super().__init__(request, context, room)
        self._swept = request

    @contextmanager
    def ground(
        self, also: Sequence[Recipe] = (), items: Sequence[TextDocument] = (), *, classes: bool = False
    ) -> Iterator[Ground]:
        """Reads the text, scores the reference (or finds it in the store), checks the head, measures the noise floor.

        `also`: recipes beside the candidate's whose calibration text may not be scored either. `items` of tasks: no
        step of the candidate's recipe may look at them. `classes`: whether points keep their sums by token class, which
        the text is then read for once. Raises what these steps raise.
        """
        request, context, watch = self._swept, self._context, self._watch
        with watch.phase("text"):
            reference, entry, origin = resolve(request, context)
            context.progress("text", 0, 0)
            documents = self._documents(request.text, reference, entry.dtype)
            corpus = self._windows(documents, reference)
            texts = self._calibration(reference, entry.dtype, documents)
            for recipe in also:
                self._check_overlap(texts, recipe, documents, pointer="/candidate/recipe")
            part = Part.of(corpus)
            masks = self._classified(documents, corpus, part.where, reference).with_none() if classes else None
            allowed = (*self._allowed(), *self._items_looked_at(texts, items))
        bare = request.model_copy(update={"candidate": request.candidate.model_copy(update={"recipe": ()})})
        sides = modify(bare, reference, entry, origin, context, calibration=texts)
        with sides.modified:
            limit = reference_limit(request.window, reference.info.max_position)
            shorter = None if limit is None else cut(corpus, limit)
            read = corpus if shorter is None else shorter.corpus
            scored = self._score(sides, reference, read, "reference")
            with watch.phase("head_check"):
                context.progress("head_check", 0, 0)
                self._check_head(reference, sides.dtype, read, lambda _: scored.stored.window(0))
            with watch.phase("noise_floor"):
                floor = noise_floor(
                    scored.engine,
                    reference,
                    read,
                    part.where if shorter is None else positions_of(read),
                    scored.stored,
                    store=self._store,
                    key=scored.key,
                    precision=PRECISION,
                    context=context,
                )
            yield Ground(sides, part, scored, floor, texts, shorter, allowed, masks)

    def _items_looked_at(self, texts: CalibrationLoader, items: Sequence[TextDocument]) -> list[str]:
        """A warning where steps of the recipe look at items of tasks and the request allows it. Raises
        CALIBRATION_OVERLAP where it does not."""
        recipe = self._swept.candidate.recipe
        if not items or not reads_text(recipe):
            return []
        if not self._swept.allow_overlap:
            texts.refuse_overlap(recipe, items, pointer="/candidate/recipe", what="item")
        found = {one for ids in texts.overlap(recipe, items).values() for one in ids}
        return looked_at(len(found), "the recipe's steps", "scored item")

    def runner(self, ground: Ground, *, total: int) -> PointRunner:
        """What measures settings on this ground; progress counts up to `total` points."""
        progress = Counted(self._context, total=total, phase=PHASE)
        return PointRunner(
            ground,
            self._bench(ground, progress),
            self._context,
            progress,
            thresholds=self._swept.thresholds,
            seed=self._swept.seed,
        )

    def kernels(self, ground: Ground, settings: Sequence[Setting], records: Sequence[PointRecord]) -> list[Kernel]:
        """What the kernels of packed points add, of each point in their order."""
        corpus = ground.part.corpus
        terms = KernelTerms(
            ground,
            self._bench(ground, self._context),
            self._room,
            self._store,
            self._context,
            window=self._swept.window,
            key=lambda sides, engine, weights: self._key(sides, engine, weights, corpus),
        )
        with self._watch.phase(KERNELS):
            return terms.of(settings, records)

    def _bench(self, ground: Ground, context: JobContext) -> Bench:
        registry, settings = load_registry(self._context.settings.models_file), self._context.settings
        return Bench(
            reference=ground.reference,
            origin=ground.sides.candidate.info,
            dtype=ground.sides.dtype,
            window=self._swept.window,
            texts=ground.texts,
            others=lambda step: other_of(step, registry, settings, pointer="/candidate/recipe"),
            room=self._room,
            context=context,
        )
