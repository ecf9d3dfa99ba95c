"""What the candidate's matched layers cost, where they have another width: each, or a span of them, run in the place of
the reference's through a map between the two widths (`stitching`).

Where a budget does not reach for every layer by itself, spans are narrowed down (`narrowing`). The maps of a span are
those of the border where it begins, or the ones that were taken before it (for the span before it, or for the one that
it is a half of): of the two those that lose less there. So layers behind a damaged one are run through maps that have
not seen the damage, where these carry as much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from app.kinds.attribute import blocks
from app.models.attribution import mapped_span_passes
from workers.diagnosis.attribute.blocks import POSITIVE, by_kind, stitched_block
from workers.diagnosis.attribute.matching import Gap, Matching
from workers.diagnosis.attribute.narrowing import Plan, Score, Span, narrow
from workers.diagnosis.attribute.origin import added
from workers.diagnosis.attribute.runs import Runs
from workers.diagnosis.attribute.stitching import Place, Stitching, why_no_maps
from workers.surgery.callbacks import Progress, no_progress

# Gives a span that an earlier attempt has measured, or what `make` makes.
Kept = Callable[[str, Callable[[], blocks.MatchedSpan]], blocks.MatchedSpan]
PHASE = "layers through a map"


def matched_layers(
    runs: Runs,
    matching: Matching,
    text: blocks.Measured,
    *,
    budget: float,
    seed: int,
    kept: Kept = lambda _, make: make(),
    progress: Progress = no_progress,
) -> blocks.MatchedLayers:
    """The block, of models of two widths and a matching that has a pair. `budget`: forward passes of the reference over
    the text. Raises what the runs' `check_cancelled` raises, which is asked before every layer that is run."""
    total = runs.total.mean(seed=seed, support=POSITIVE)
    control = float(runs.control(Gap((), (), 0, 0)).values())
    why = why_no_maps(runs.clusters)
    if why:
        return blocks.MatchedLayers(
            measured=text, total=total, spans=(), steps=(), budget=budget, control=control, not_stitched=why
        )
    work = _Work(runs, matching.pairs, seed, kept, progress)
    found = narrow(rows_of(matching.pairs), work.cost, work.measure, budget=budget, tell=work.planned)
    maps = work.stitching.maps
    return blocks.MatchedLayers(
        measured=text,
        total=total,
        spans=tuple(work.found[span].model_copy(update={"split": span in found.split}) for span in found.measured),
        untried=tuple(matching.pairs[place][0] for span in found.untried for place in span),
        steps=tuple(
            blocks.SpanStep(spans=one.spans, longest=one.longest, split=one.split, cost=round(one.cost, 3))
            for one in found.steps
            if one.spans
        ),
        budget=budget,
        control=control,
        maps=blocks.WidthMaps(widths=maps.widths, folds=maps.folds, tokens=maps.tokens),
    )


def rows_of(pairs: Sequence[Place]) -> list[Span]:
    """The places of pairs that stand side by side in both models."""
    breaks = [place for place, (one, other) in enumerate(pairwise(pairs), 1) if other != (one[0] + 1, one[1] + 1)]
    return [range(start, end) for start, end in pairwise([0, *breaks, len(pairs)])]


class _Work:
    """Spans as they are measured."""

    def __init__(self, runs: Runs, pairs: Sequence[Place], seed: int, kept: Kept, progress: Progress) -> None:
        self._runs, self._pairs, self._seed, self._kept, self._progress = runs, pairs, seed, kept, progress
        self._infos = runs.reference.runner.skeleton.info, runs.candidate.runner.skeleton.info
        self._most = 0
        self.stitching = Stitching(runs, seed=seed)
        self.found: dict[Span, blocks.MatchedSpan] = {}
        # embeddings stand for each other whatever the layers are
        self._before: Place = (0, 0)

    def planned(self, plan: Plan) -> None:
        """What there is to do at most."""
        self._most = plan.measurements

    def cost(self, span: Span) -> float:
        """Forward passes of a measurement."""
        return mapped_span_passes(self._infos, self._pairs[span.start][0], len(span))

    def measure(self, span: Span, whole: Span | None) -> Score:
        """How bad a span is: what is not finite before all, what the map shows before what it loses."""
        self._runs.check_cancelled()
        self._progress(PHASE, len(self.found), max(self._most, len(self.found)))
        before = self._before if whole is None else self.found[whole].maps_of
        begin, end = self._pairs[span.start], self._pairs[span[-1]]
        found = self._kept(f"matched-{begin[0]}-{end[0]}", lambda: self._measured(begin, end, before))
        self.found[span], self._before = found, found.maps_of
        nats = found.stitched.nats.mean
        return (True, float("inf")) if nats is None else (not found.lost, nats)

    def _measured(self, begin: Place, end: Place, before: Place) -> blocks.MatchedSpan:
        after = end[0] + 1, end[1] + 1
        gap = Gap(tuple(range(begin[0], after[0])), tuple(range(begin[1], after[1])), *after)
        stitched, place = self.stitching.swapped_through(gap, [before, begin])
        runs, count = self._runs, after[0] - begin[0]
        return blocks.MatchedSpan(
            reference=(begin[0], end[0]),
            candidate=(begin[1], end[1]),
            stitched=stitched_block(stitched, runs.total, self._seed),
            maps_of=place,
            before=None if stitched.before is None else stitched.before.mean(seed=self._seed, support=POSITIVE),
            added=(added(runs.reference, begin[0], count), added(runs.candidate, begin[1], count)),
            split=False,
            classes=by_kind(stitched.nats, seed=self._seed),
        )
