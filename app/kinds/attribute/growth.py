"""How the error of the hidden states comes about, grows, and is repaired."""

from __future__ import annotations

from markupsafe import Markup

from app.contracts.report import Mean
from app.kinds.attribute.blocks import ActivationGrowth, ErrorStep
from app.kinds.attribute.words import mean_cell, mean_text, on, with_intervals
from app.reports import format as fmt
from app.reports.blocks import Block, Cell, Chart, Column, Note, Section, Table, fold
from app.reports.charts.internals import Series, layer_curves

_MOST_MARKS, _OUTLIERS = 6, 3


def growth(block: ActivationGrowth) -> Section:
    """The error by border, each layer's part in it, and self-repair if it was measured."""
    means = [*(border.relative for border in block.borders), *(step.fresh for step in block.steps)]
    caption = f"Relative error of the hidden states, {with_intervals(any(mean.ci for mean in means))}"
    found: list[Block] = [
        Note(growth_sentence(block), kind="sentence"),
        Chart(caption, _curves(block)),
        *fold("Every layer: fresh error, amplification, growth", [steps_table(block)]),
        *fold("Every border: SQNR, cosine, outlier channels", [borders_table(block)]),
        *_repair(block),
        Note(
            "Relative error is the mean over tokens of ‖error‖ / ‖state‖. Fresh: what a layer’s own change does to the "
            "reference’s states. Amplification: what a layer makes of the error that enters it; 1 hands it on as it "
            f"is. Each window’s first token is left out. Measured in float32 {on(block.measured)}."
        ),
    ]
    return Section("growth", "How the error grows", found, "Error growth")


def growth_sentence(block: ActivationGrowth) -> str:
    """How large the last error is, and whether layers make it more than what they add afresh."""
    last = block.borders[-1].relative
    if not last.mean:
        return "The candidate’s hidden states are the reference’s at every border: there is no error."
    text = f"The last hidden state is off by {mean_text(last, percent=True)}\u00a0% of its size."
    cascade, source = block.cascade, _only_source(block)
    if cascade.mean is None:
        return text
    if source is not None and source is block.steps[-1]:
        return f"{text} It is the fresh error of {_of(source)}, which no later layer sees."
    if source is not None:
        of = f"the one fresh error, of {_of(source)}"
        amplify, damp = "later layers amplify it; no errors add up", "later layers damp it"
        unsure = "whether later layers amplify or damp it"
    else:
        of = "what fresh errors of layers that do not see each other add up to"
        amplify, damp = "layers add to each other’s errors: a cascade", "layers damp each other’s errors: no cascade"
        unsure = "whether it is a cascade"
    found = _judged(cascade, amplify, damp, unsure)
    return f"{text} That is {mean_text(cascade)} times {of}: {found}."


def _judged(cascade: Mean, amplify: str, damp: str, unsure: str) -> str:
    """What the interval of the ratio shows."""
    if cascade.ci is None:
        return f"without an interval, {unsure} is not known"
    low, high = cascade.ci
    if low > 1:
        return amplify
    return damp if high < 1 else f"{unsure} is not sure"


def _only_source(block: ActivationGrowth) -> ErrorStep | None:
    """The one step that makes an error; None if several do, or the embedding does."""
    makers = [step for step in block.steps if step.fresh.mean]
    return makers[0] if len(makers) == 1 and not block.borders[0].relative.mean else None


def _of(step: ErrorStep) -> str:
    return f"the gap ({_name(step)})" if step.gap else f"layer {_name(step)}"


def _name(step: ErrorStep) -> str:
    ours, theirs = range(*step.reference), range(*step.candidate)
    if not step.gap:
        return f"{ours[0]}" if ours[0] == theirs[0] else f"{ours[0]}→{theirs[0]}"
    parts = [f"{', '.join(map(str, ours))} dropped"] if ours else []
    parts += [f"{', '.join(map(str, theirs))} inserted"] if theirs else []
    return "; ".join(parts)


def _curves(block: ActivationGrowth) -> Markup:
    places = _places(block)
    relative = [(place, border.relative) for place, border in zip(places, block.borders, strict=True)]
    steps = list(zip(places[1:], block.steps, strict=True))
    fresh = [(place, step.fresh) for place, step in steps]
    points = (
        tuple((place, mean.mean, mean.ci) for place, mean in curve if mean.mean is not None)
        for curve in (relative, fresh)
    )
    return layer_curves(
        (Series("error of the states", next(points)), Series("fresh error", next(points), "other")),
        title="Relative error by layer border, and what each layer adds to it afresh",
        unit="‖error‖ / ‖state‖",
        last=int(max(places)),
        across="layer border of the candidate",
        marks=[(place, "gap") for place, step in steps if step.gap][:_MOST_MARKS],
    )


def _places(block: ActivationGrowth) -> list[float]:
    """Borders of the candidate; if a gap leaves that as it was, half a place on."""
    found: list[float] = []
    for border in block.borders:
        place = float(border.candidate)
        found.append(place + 0.5 if found and place <= found[-1] else place)
    return found


def steps_table(block: ActivationGrowth) -> Table:
    """What each layer, or gap, adds to the error."""
    names = ("Fresh error, %", "Amplification of what enters", "Growth of the whole error")
    columns = (*(Column(name) for name in names), Column("Relative error behind it, %"))
    rows = tuple(
        (
            Cell(_name(step)),
            mean_cell(step.fresh, percent=True),
            mean_cell(step.amplification, strong=True),
            mean_cell(step.growth),
            mean_cell(border.relative, percent=True),
        )
        for step, border in zip(block.steps, block.borders[1:], strict=True)
    )
    return Table("From layer to layer", (Column("Layer", "name"), *columns), rows)


def borders_table(block: ActivationGrowth) -> Table:
    """The error at each border, and the channels that carry it."""
    columns = (
        Column("Border", "name"),
        Column("SQNR, dB"),
        Column("Cosine"),
        Column("Outlier channels"),
        Column("Squared error in them, %"),
        Column("The largest: channel × median", "text", priority=1),
    )
    rows = tuple(
        (
            Cell(str(one.candidate) if one.reference == one.candidate else f"{one.reference}→{one.candidate}"),
            mean_cell(one.sqnr),
            mean_cell(one.cosine),
            Cell(fmt.count(one.outlier_channels)),
            mean_cell(Mean(mean=one.outlier_share, ci=one.outlier_share_ci), percent=True),
            Cell(", ".join(f"{most.channel} × {fmt.number(most.ratio)}" for most in one.outliers[:_OUTLIERS])),
        )
        for one in block.borders
    )
    return Table("At each border", columns, rows)


def _repair(block: ActivationGrowth) -> list[Block]:
    """Whether later layers repair what a layer does."""
    rows = tuple(
        (
            Cell(_name(step)),
            mean_cell(step.direct),
            mean_cell(step.final, strong=True),
            mean_cell(step.repaired, percent=True),
        )
        for step in block.steps
        if step.direct is not None
    )
    if not rows:
        return []
    names = ("Direct effect, nats", "Final effect, nats", "Repaired by later layers, %")
    columns = (Column("Layer", "name"), *(Column(name) for name in names))
    table = Table("Self-repair: each layer’s fresh error alone in the reference", columns, rows)
    note = Note(repair_sentence(block), "Do later layers repair it?", "plain")
    return [note, *fold("Direct and final effect of every layer", [table])]


def repair_sentence(block: ActivationGrowth) -> str:
    """Of how many layers the others repair the error, and of how many they make it worse."""
    # No layer comes after the last one: its direct and its final effect are one.
    steps = block.steps[:-1]
    bounds = [step.repaired.ci for step in steps if step.repaired is not None and step.repaired.ci is not None]
    if not bounds or block.repair_measured is None:
        return ""
    better, worse = sum(low > 0 for low, _ in bounds), sum(high < 0 for _, high in bounds)
    return (
        f"{len(bounds)} layers have an effect and are followed by others. Later layers repair that of {better} "
        f"and make that of {worse} worse, each by its own 95 % interval {on(block.repair_measured)}: about one in "
        "twenty is counted by luck. Direct: the error reaches the head past all later layers. Final: they see it."
    )
