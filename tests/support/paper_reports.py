"""Reports made by hand for the rules on the paper's claims: valid ones of each kind with a few numbers set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from pydantic import JsonValue

from app.contracts.diff_report import Difference, Measure
from app.contracts.profile import Cell
from app.contracts.report import Mean
from app.kinds.attribute.report import AttributeReport
from app.kinds.calibrate.report import CalibrateReport
from app.kinds.compare.report import CompareReport
from app.kinds.surface.report import Interaction, SurfaceReport
from app.kinds.sweep.report import SweepReport, Threshold
from app.kinds.tasks.report import Share, TasksReport
from app.kinds.trajectory.report import Ratio, TrajectoryReport
from examples.paper.pairs import Differ
from tests.support.attribute_reports import attribute_report
from tests.support.calibration_reports import calibrate_report
from tests.support.internals_blocks import dense
from tests.support.reports import compare_report
from tests.support.surface_reports import surface_report
from tests.support.sweep_reports import bending, course, sweep_report
from tests.support.tasks_reports import task, tasks_report
from tests.support.trajectory_reports import trajectory_report

Interval = tuple[float, float, float]
"""Value, lower and upper limit."""


def mean(one: Interval) -> Mean:
    value, low, high = one
    return Mean(mean=value, ci=(low, high), clusters="documents")


NOTHING = Mean(mean=None, ci=None, clusters="documents")


@cache
def _compare() -> CompareReport:
    return CompareReport.model_validate(compare_report())


@cache
def _sweep() -> SweepReport:
    return SweepReport.model_validate(sweep_report(course(bending())))


@cache
def _surface() -> SurfaceReport:
    return SurfaceReport.model_validate(surface_report())


@cache
def _attribute() -> AttributeReport:
    return AttributeReport.model_validate(attribute_report())


@cache
def _tasks() -> TasksReport:
    return TasksReport.model_validate(tasks_report(task("example", "inconclusive", items=206)))


@cache
def _trajectory() -> TrajectoryReport:
    return TrajectoryReport.model_validate(trajectory_report(candidates=2, few=True))


def differing(by: Mapping[tuple[str, str], Interval], p: float = 0.001) -> Differ:
    """Paired differences, of the second job of a pair minus the first, all with this p."""

    def differ(earlier: str, later: str, measure: Measure) -> Difference:
        return Difference(
            measure=measure,
            unit="nats",
            tokens=1000,
            documents=24,
            difference=mean(by[earlier, later]),
            p=p,
            p_adjusted=p,
            verdict="no difference shown",
        )

    return differ


def compared(ratio: Interval = (1.1, 1.0, 1.2), kl: Interval = (0.1, 0.09, 0.11)) -> CompareReport:
    """A comparison with this perplexity over the original's and this KL."""
    base = _compare()
    return base.model_copy(
        update={
            "perplexity": base.perplexity.model_copy(update={"ratio": mean(ratio)}),
            "divergence": base.divergence.model_copy(
                update={"kl": base.divergence.kl.model_copy(update=mean(kl).model_dump())}
            ),
        }
    )


def calibrated(saved: Interval, domains: Mapping[str, Interval], *, chosen: bool = True) -> CalibrateReport:
    """A calibration whose chosen correction saves this KL, and this in each domain; the others save a nat."""
    base = CalibrateReport.model_validate(calibrate_report())
    cell = base.test.table[0].own

    def saving(one: Interval) -> Cell:
        return cell.model_copy(update={"saved": mean(one)})

    rows = tuple(
        row.model_copy(
            update={
                "own": saving(saved if row.chosen else (1.0, 0.9, 1.1)),
                "domains": {name: saving(one) for name, one in domains.items()},
                "chosen": row.chosen and chosen,
            }
        )
        for row in base.test.table
    )
    return base.model_copy(update={"test": base.test.model_copy(update={"table": rows})})


def answered(loss: Interval, *, right: float = 0.8, at_chance: bool = False) -> TasksReport:
    """One task, of whose accuracy `right` this share is lost."""
    value, low, high = (one * right for one in loss)
    report = _tasks()
    found = report.tasks[0]
    return report.model_copy(
        update={
            "tasks": (
                found.model_copy(
                    update={
                        "reference": Share(mean=right, ci=(right - 0.05, right + 0.05)),
                        "candidate": Share(mean=right - value, ci=(right - value - 0.05, right - value + 0.05)),
                        "difference": Share(mean=-value, ci=(-high, -low)),
                        "chance": found.chance.model_copy(update={"reference_at_chance": at_chance}),
                    }
                ),
            )
        }
    )


def accuracies(reference: float, candidate: float) -> TasksReport:
    """One task that two models answer with these accuracies, each without spread."""
    report = _tasks()
    sides = {"reference": reference, "candidate": candidate, "difference": candidate - reference}
    shares = {name: Share(mean=value, ci=(value, value)) for name, value in sides.items()}
    found = report.tasks[0]
    chance = found.chance.model_copy(update={"reference_at_chance": False})
    return report.model_copy(update={"tasks": (found.model_copy(update={**shares, "chance": chance}),)})


def swept(ratios: Mapping[JsonValue, Interval], kl: Interval = (0.1, 0.09, 0.11)) -> SweepReport:
    """A sweep of these settings, weakest first, with these perplexities over the original's; one KL at all of them."""
    base = _sweep()
    block = compared(kl=kl).divergence
    template = base.points[0]
    assert template.perplexity is not None
    points = [
        template.model_copy(
            update={
                "value": value,
                "s": (index + 1) / (len(ratios) + 1),
                "divergence": block,
                "perplexity": template.perplexity.model_copy(update={"ratio": mean(ratio)}),
            }
        )
        for index, (value, ratio) in enumerate(ratios.items())
    ]
    return base.model_copy(update={"points": tuple(points)})


def kneed(s0: Interval, answer: str = "transition") -> SweepReport:
    """A sweep whose fitted knee is here."""
    base = _sweep()
    assert isinstance(base.threshold, Threshold)
    value, low, high = s0
    found = base.threshold.model_copy(
        update={"s0": value, "ci": (low, high), "answer": answer, "reasons": ("drawn by hand",)}
    )
    return base.model_copy(update={"threshold": found})


def surface(
    alone: tuple[Interval, Interval], interactions: Mapping[tuple[int, int], tuple[Interval, str]]
) -> SurfaceReport:
    """A surface whose settings with one knob alone have these perplexities over the original's: the first knob at
    index 1 and beyond, the second likewise; and these interactions, by index, with their kinds."""
    base = _surface()
    points = tuple(
        point.model_copy(update={"perplexity_ratio": mean(alone[0] if point.second == 0 else alone[1])})
        if (point.first == 0) != (point.second == 0)
        else point
        for point in base.points
    )
    cells = tuple(
        Interaction(first=first, second=second, order="as given", nats=mean(nats), kind=kind, p=0.5)
        for (first, second), (nats, kind) in interactions.items()
    )
    return base.model_copy(update={"points": points, "interactions": cells})


def inside(
    js: Interval = (0.1, 0.09, 0.11),
    kl: Interval = (0.5, 0.45, 0.55),
    cascade: Interval = (2, 1.8, 2.2),
    amplified: Sequence[Interval] = ((1.2, 1.1, 1.3),),
) -> AttributeReport:
    """An attribution with this divergence of attention, this KL of the same tokens, this cascade, and these
    amplifications of the error that enters a layer, a layer each; the first layer has none, as no error enters it."""
    blocks = dense()
    assert blocks.attention is not None
    assert blocks.alignment is not None
    assert blocks.activations is not None
    template = blocks.activations.steps[0]
    steps = tuple(
        template.model_copy(update={"reference": (layer, layer + 1), "amplification": one})
        for layer, one in enumerate((NOTHING, *map(mean, amplified)))
    )
    internals = blocks.model_copy(
        update={
            "attention": blocks.attention.model_copy(update={"js": mean(js)}),
            "alignment": blocks.alignment.model_copy(update={"total": mean(kl)}),
            "activations": blocks.activations.model_copy(update={"cascade": mean(cascade), "steps": steps}),
        }
    )
    return _attribute().model_copy(update={"internals": internals})


def trajectory(ratios: Sequence[Interval], edits: Sequence[Interval] | None = None) -> TrajectoryReport:
    """A trajectory whose cells have these amplifications of KL, and of edits (the same, unless given) over one-step
    disagreements of exactly a tenth."""
    base = _trajectory()
    cells = []
    for index, (value, low, high) in enumerate(ratios):
        template = base.cells[index % len(base.cells)]
        ratio = Ratio(value=value, ci=(low, high))
        amplification = template.amplification.model_copy(update={"kl": ratio, "one_step": mean((0.1, 0.1, 0.1))})
        share = [0.1 * end for end in (edits or ratios)[index]]
        distance = template.edit_distance[-1].model_copy(update={"distance": mean((share[0], share[1], share[2]))})
        lengths = (*template.edit_distance[:-1], distance)
        cells.append(template.model_copy(update={"amplification": amplification, "edit_distance": lengths}))
    return base.model_copy(update={"cells": tuple(cells)})
