"""How the error of the hidden states comes about, grows, and is repaired."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from app.contracts.report import Mean
from app.kinds.attribute.blocks import ActivationGrowth, ErrorStep
from app.reports.blocks import Cell, Column, Table
from app.web import format as fmt
from app.web.charts_internals import Series, layer_curves
from app.web.sections.words_of_internals import mean_cell, on, told


@dataclass(frozen=True)
class GrowthView:
    """What the page draws. `repair` is None where self-repair was not measured."""

    sentence: str
    growth: Markup
    intervals: bool
    steps: Table
    borders: Table
    repair: Table | None
    repair_sentence: str
    note: str


def activation_growth(block: ActivationGrowth) -> GrowthView:
    """The view of a block."""
    return GrowthView(
        sentence=growth_sentence(block),
        growth=_growth(block),
        intervals=any(
            mean.ci for mean in (*(one.relative for one in block.borders), *(one.fresh for one in block.steps))
        ),
        steps=_steps(block),
        borders=_borders(block),
        repair=_repair(block),
        repair_sentence=_repair_sentence(block),
        note=(
            "Relative error is the mean over tokens of ‖error‖ / ‖state‖. Fresh: what a layer’s own change does to the "
            "reference’s states. Amplification: what a layer makes of the error that enters it, 1 is handed on as it "
            f"is. Each window’s first token is left out. Measured in float32 {on(block.measured)}."
        ),
    )


def growth_sentence(block: ActivationGrowth) -> str:
    """How large the last error is, and whether layers make it more than what they add afresh."""
    last = block.borders[-1].relative
    if not last.mean:
        return "The candidate’s hidden states are the reference’s at every border: there is no error."
    text = f"The last hidden state is off by {told(last, percent=True)}\u00a0% of its size. "
    cascade = block.cascade
    if cascade.mean is None:
        return text
    source = _only_source(block)
    if source is not None and source is block.steps[-1]:
        return f"{text}It is the fresh error of {_of(source)}, which no later layer sees."
    if source is not None:
        return f"{text}That is {told(cascade)} times the one fresh error, of {_of(source)}: {_one_error(cascade)}."
    return (
        f"{text}That is {told(cascade)} times what fresh errors of layers that do not see each other add up to: "
        f"{_many_errors(cascade)}."
    )


def _only_source(block: ActivationGrowth) -> ErrorStep | None:
    """The one step that makes an error; None where several do, or what stands before all layers does."""
    makers = [step for step in block.steps if step.fresh.mean]
    return makers[0] if len(makers) == 1 and not block.borders[0].relative.mean else None


def _of(step: ErrorStep) -> str:
    """A step in a sentence."""
    return f"the gap ({_name(step)})" if step.gap else f"layer {_name(step)}"


def _one_error(cascade: Mean) -> str:
    if cascade.ci is None:
        return "without an interval, whether later layers amplify it or damp it is not told"
    low, high = cascade.ci
    if low > 1:
        return "later layers amplify it; no errors add up"
    return "later layers damp it" if high < 1 else "that later layers amplify it or damp it is not sure"


def _many_errors(cascade: Mean) -> str:
    if cascade.ci is None:
        return "without an interval, neither a cascade nor damping is told"
    low, high = cascade.ci
    if low > 1:
        return "layers add to each other’s errors: a cascade"
    return "layers damp each other’s errors: no cascade" if high < 1 else "neither a cascade nor damping for sure"


def _growth(block: ActivationGrowth) -> Markup:
    places = _places(block)
    relative = tuple(
        (place, border.relative.mean, border.relative.ci)
        for place, border in zip(places, block.borders, strict=True)
        if border.relative.mean is not None
    )
    fresh = tuple(
        (place, step.fresh.mean, step.fresh.ci)
        for place, step in zip(places[1:], block.steps, strict=True)
        if step.fresh.mean is not None
    )
    return layer_curves(
        (Series("error of the states", relative), Series("fresh error", fresh, "other")),
        title="Relative error by layer border, and what each layer adds to it afresh",
        unit="‖error‖ / ‖state‖",
        last=int(max(places)),
        across="layer border of the candidate",
        marks=[(place, "gap") for place, step in zip(places[1:], block.steps, strict=True) if step.gap][:6],
    )


def _places(block: ActivationGrowth) -> list[float]:
    """Borders of the candidate; where a gap leaves that as it was, half a place on."""
    found: list[float] = []
    for border in block.borders:
        place = float(border.candidate)
        found.append(place + 0.5 if found and place <= found[-1] else place)
    return found


def _name(step: ErrorStep) -> str:
    ours, theirs = range(*step.reference), range(*step.candidate)
    if not step.gap:
        return f"{ours[0]}" if ours[0] == theirs[0] else f"{ours[0]}→{theirs[0]}"
    parts = [f"{', '.join(map(str, ours))} dropped"] if ours else []
    parts += [f"{', '.join(map(str, theirs))} inserted"] if theirs else []
    return "; ".join(parts)


def _steps(block: ActivationGrowth) -> Table:
    return Table(
        caption="From layer to layer",
        columns=(
            Column("Layer", "name"),
            Column("Fresh error, %"),
            Column("Amplification of what enters"),
            Column("Growth of the whole error"),
            Column("Relative error behind it, %"),
        ),
        rows=tuple(
            (
                Cell(_name(step)),
                mean_cell(step.fresh, percent=True),
                mean_cell(step.amplification, strong=True),
                mean_cell(step.growth),
                mean_cell(border.relative, percent=True),
            )
            for step, border in zip(block.steps, block.borders[1:], strict=True)
        ),
    )


def _borders(block: ActivationGrowth) -> Table:
    return Table(
        caption="At each border",
        columns=(
            Column("Border", "name"),
            Column("SQNR, dB"),
            Column("Cosine"),
            Column("Outlier channels"),
            Column("Squared error in them, %"),
            Column("The largest: channel × median", "text"),
        ),
        rows=tuple(
            (
                Cell(
                    str(border.candidate)
                    if border.reference == border.candidate
                    else f"{border.reference}→{border.candidate}"
                ),
                mean_cell(border.sqnr),
                mean_cell(border.cosine),
                Cell(fmt.count(border.outlier_channels)),
                mean_cell(Mean(mean=border.outlier_share, ci=border.outlier_share_ci), percent=True),
                Cell(", ".join(f"{one.channel} × {fmt.number(one.ratio)}" for one in border.outliers[:3])),
            )
            for border in block.borders
        ),
    )


def _repair(block: ActivationGrowth) -> Table | None:
    steps = [step for step in block.steps if step.direct is not None]
    if not steps:
        return None
    return Table(
        caption="Self-repair: each layer’s fresh error alone in the reference",
        columns=(
            Column("Layer", "name"),
            Column("Direct effect, nats"),
            Column("Final effect, nats"),
            Column("Repaired by later layers, %"),
        ),
        rows=tuple(
            (
                Cell(_name(step)),
                mean_cell(step.direct),
                mean_cell(step.final, strong=True),
                mean_cell(step.repaired, percent=True),
            )
            for step in steps
        ),
    )


def _repair_sentence(block: ActivationGrowth) -> str:
    # No layer comes after the last one: its direct and its final effect are one.
    repaired = [
        step.repaired for step in block.steps[:-1] if step.repaired is not None and step.repaired.ci is not None
    ]
    if not repaired or block.repair_measured is None:
        return ""
    better = sum(one.ci is not None and one.ci[0] > 0 for one in repaired)
    worse = sum(one.ci is not None and one.ci[1] < 0 for one in repaired)
    return (
        f"Of {len(repaired)} layers whose change has an effect and that others follow, later layers repair that of "
        f"{better} and make that of {worse} worse (each by its own 95 % interval, {on(block.repair_measured)}: of "
        "layers without either about one in twenty is counted by luck). Direct: the error reaches the head past all "
        "later layers. Final: they see it."
    )
