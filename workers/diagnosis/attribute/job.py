"""The `attribute` job: which part of the candidate costs how many nats, why, and what would repair it.

First the engine runs both models on the whole text, as in `compare`. Then transformers' layers run both on a part of
the text, and keep the states at every border. Parts are swapped on these states, and the worst ones are looked into.
The job's scratch keeps all measurements: the attempt after a lost one goes on from there.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from app.kinds.attribute.blocks import Internals
from app.kinds.attribute.plan import check_attribution, inner_windows
from app.kinds.attribute.report import AttributeReport, Whole
from app.kinds.attribute.request import AttributeRequest
from app.models.checkpoint import CheckpointInfo
from workers.diagnosis.attribute.changes import differing
from workers.diagnosis.attribute.examination import Examination
from workers.diagnosis.attribute.found import Found
from workers.diagnosis.attribute.internals import Model as Inner
from workers.diagnosis.attribute.internals import inner_bytes, internals
from workers.diagnosis.attribute.numbering import moved, renumbered_by
from workers.diagnosis.attribute.pair import opened, plain, swapping_bytes, why_not
from workers.diagnosis.attribute.report import build_report, export
from workers.diagnosis.attribute.search import Search
from workers.diagnosis.attribute.sites import Scope, scope_of, sites_of
from workers.diagnosis.attribute.subset import Subset, draw
from workers.diagnosis.attribute.swapping import Swapper
from workers.distributions.divergence import Precision
from workers.engine.room import EngineRoom
from workers.measuring.attempt import counted
from workers.measuring.means import POSITIVE, mean_of
from workers.measuring.pair import PairAttempt
from workers.measuring.plan import plan_fingerprint
from workers.process.handler import JobContext
from workers.surgery.blockwise.skeleton import Read
from workers.surgery.channels import Channels, framed
from workers.surgery.reading import open_tensors

PRECISION: Precision = "fast"
_VERSION = "attribute/7"


def attribute(request: AttributeRequest, context: JobContext, room: EngineRoom) -> AttributeReport:
    """Runs the job and returns its report; sites and recipes go to `context.output` as files, too.

    Raises `HemostatError` for what request, models or machine do not allow, `JobCancelled` when told to stop.
    """
    with counted(room, context):
        return _Attribute(request, context, room).run()


class _Attribute(PairAttempt):
    """One attempt at one attribute job."""

    def __init__(self, request: AttributeRequest, context: JobContext, room: EngineRoom) -> None:
        super().__init__(request, context, room)
        self._request = request
        # Parts are swapped and looked into there.
        self._device = room.pool.steps_device

    def run(self) -> AttributeReport:
        request, context, watch = self._request, self._context, self._watch
        with self.pair() as pair:
            reference, candidate = pair.sides.reference.info, pair.sides.candidate.info
            check_attribution(request, reference, candidate)
            found = Found(**vars(self.measure(pair, PRECISION)), origin=pair.origin)
            found.not_swapped = why_not(reference, candidate) or renumbered_by(pair.origin, request.candidate.recipe)
            self._parts(found)
        context.check_cancelled()
        with watch.phase("statistics"):
            context.progress("statistics", 0, 1)
            report = build_report(found, context)
        with watch.phase("report"):
            export(report, found, context)
            context.progress("report", 1, 1)
        return report

    # --- parts

    def _parts(self, found: Found) -> None:
        """Both models on a part of the text, layer by layer: parts swapped, and what goes on inside."""
        request, context = self._request, self._context
        sides, corpus, positions = found.sides, found.corpus, found.positions
        subset = draw(corpus, positions, tokens=request.tokens, seed=request.seed)
        told = [
            _VERSION,
            torch.__version__,
            self._device,
            sides.reference.weights,
            sides.candidate.weights,
            corpus.fingerprint,
            sides.dtype,
            repr((subset.windows, subset.starts, subset.length, request.seed)),
        ]
        scratch = context.scratch / f"attribute-{plan_fingerprint(told)[:24]}"
        scratch.mkdir(parents=True, exist_ok=True)
        with (
            plain(sides.reference, self._device, context) as reference,
            plain(sides.candidate, self._device, context) as candidate,
        ):
            if not found.not_swapped:
                found.not_swapped = self._moved(reference, candidate)
            if not found.not_swapped:
                self._swap(reference, candidate, subset, scratch, found, sides.dtype)
            # if no part is swapped, the alignment's gaps are the parts
            if request.internals or found.not_swapped:
                with self._watch.phase("internals"):
                    found.internals = self._inside(reference, candidate, subset, scratch / "internals")
        found.subset = subset

    def _swap(
        self,
        reference: CheckpointInfo,
        candidate: CheckpointInfo,
        subset: Subset,
        scratch: Path,
        found: Found,
        dtype: str,
    ) -> None:
        request, context, watch = self._request, self._context, self._watch
        context.progress("borders", 0, 0)
        self._make_room(swapping_bytes((reference, candidate), subset.tokens_NL.numel(), dtype))
        began = time.perf_counter()
        with opened(reference, candidate, subset, dtype, self._device, scratch, context) as (swapper, reads):
            spent = time.perf_counter() - began
            watch.seconds["borders"] = round(spent, 3)
            context.observe("phase_seconds", spent, phase="borders")
            full = self._together(swapper, subset, found)
            with watch.phase("swap"):
                context.progress("compare weights", 0, 0)
                scope = self._scope(reference, candidate, reads)
            search = Search(
                swapper,
                scope.chosen,
                request.levels,
                request.budget,
                request.top,
                context,
                all_layers=request.layers is None,
            )
            before = swapper.seconds
            with watch.phase("swap"):
                search.run()
            found.search_seconds = swapper.seconds - before
            examination = Examination(swapper, search, reads, request, context, full)
            with watch.phase("look"):
                examination.run()
            swapper.release()
            found.scope, found.search, found.examination, found.full = scope, search, examination, full

    def _scope(self, reference: CheckpointInfo, candidate: CheckpointInfo, reads: tuple[Read, Read]) -> Scope:
        """What differs of that which was asked for, and beside it."""
        sites = sites_of(reference, self._request.layers)
        changed = differing(sites, reference, candidate, reads, self._context.check_cancelled)
        return scope_of(sites, changed, self._request.levels)

    def _moved(self, reference: CheckpointInfo, candidate: CheckpointInfo) -> str:
        """Why layers of one number are no counterparts, by a few rows of each."""
        with open_tensors(reference, "cpu") as ours, open_tensors(candidate, "cpu") as theirs:
            read = framed(theirs.read, Channels.of(candidate), Channels.of(reference))
            return moved(reference, candidate, (ours.read, read), self._context.check_cancelled)

    def _inside(self, reference: CheckpointInfo, candidate: CheckpointInfo, subset: Subset, scratch: Path) -> Internals:
        """What goes on inside, on the first windows of the subset."""
        context = self._context
        scratch.mkdir(parents=True, exist_ok=True)
        windows, length = inner_windows((reference, candidate), subset.length)
        tokens_NL = subset.tokens_NL[:windows, :length]
        self._make_room(inner_bytes((reference, candidate), *tokens_NL.shape))
        with open_tensors(reference, self._device) as ours, open_tensors(candidate, self._device) as theirs:
            return internals(
                (Inner(reference, ours.read, self._device), Inner(candidate, theirs.read, self._device)),
                tokens_NL,
                [self._document(subset, row) for row in range(len(tokens_NL))],
                scratch,
                alignment_alone=not self._request.internals,
                seed=self._request.seed,
                progress=lambda phase, done, total: context.progress(f"inside: {phase}", done, total),
                check_cancelled=context.check_cancelled,
            )

    def _make_room(self, needed: int) -> None:
        """Ends engines for what runs on the GPU. Raises ENGINE_OUT_OF_MEMORY if that is not enough."""
        if self._device != "cpu":
            self._room.pool.make_room(needed, what="the attribution")

    @staticmethod
    def _document(subset: Subset, row: int) -> int:
        """The document of a window."""
        first = int(np.flatnonzero(subset.where.window == subset.windows[row])[0])
        return int(subset.where.document[first])

    def _together(self, swapper: Swapper, subset: Subset, found: Found) -> NDArray[np.float32]:
        """KL of the whole candidate on the subset by transformers' layers, beside the engine's."""
        with self._watch.phase("swap"):
            self._context.progress("candidate on the subset", 0, 0)
            full = swapper.kl((), into="candidate")
        engine = np.where(found.values.finite, found.values.kl, np.nan).astype(np.float64)[subset.index]
        # what sees less than in the engine's windows differs from it by that, too
        engine[~subset.in_full_context] = np.nan
        seed, where = self._request.seed, subset.where
        found.whole = Whole(
            engine=mean_of(engine, where, seed=seed, support=POSITIVE),
            transformers=mean_of(full.astype(np.float64), where, seed=seed, support=POSITIVE),
            difference=mean_of(engine - full, where, seed=seed),
        )
        return full
