"""What was measured inside the two models: which layer is which, how the error grows, where the models look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from app.contracts.report import Mean
from app.kinds.attribute.blocks import (
    ActivationGrowth,
    AttentionShift,
    ErrorStep,
    Internals,
    LayerAlignment,
    LayerGap,
)
from app.kinds.attribute.words import mean_cell, mean_text, on, with_intervals
from app.reports import format as fmt
from app.reports.blocks import Block, Cell, Chart, Column, Items, Note, Section, Table, fold
from app.reports.charts.internals import Series, layer_curves
from app.reports.untrusted import visible

_MOST_MARKS: Final = 6


def inside(block: Internals) -> list[Block]:
    """A section for each block, and what could not be measured."""
    missing = tuple(map(visible, block.not_measured))
    heading = "Not measured inside the models"
    return [
        *([] if block.alignment is None else [layers(block.alignment)]),
        *([] if block.activations is None else [growth(block.activations)]),
        *([] if block.attention is None else [attention(block.attention)]),
        *([Section("not-inside", heading, [Items(missing)], "Not measured")] if missing else []),
    ]


# --- which layer is which


def layers(block: LayerAlignment) -> Section:
    """The layers without a partner, and what they cost."""
    notes = [Note(alignment_sentence(block), kind="sentence"), Note(_alignment_note(block))]
    return Section("alignment", "Which layer is which", notes, "Layers")


def alignment_sentence(block: LayerAlignment) -> str:
    """Which layers have no partner, and what each gap costs."""
    if not block.gaps:
        return f"All {block.reference_layers} layers of the two models match, in order."
    parts = [f"{_gap_name(gap)} ({mean_text(gap.nats)} nats)" for gap in block.gaps]
    return f"Without a partner: {'; '.join(parts)}. The whole candidate loses {mean_text(block.total)} nats per token."


def _gap_name(gap: LayerGap) -> str:
    named = [f"layer {layer} dropped" for layer in gap.dropped]
    return ", ".join([*named, *(f"layer {layer} inserted" for layer in gap.inserted)])


def _alignment_note(block: LayerAlignment) -> str:
    lines = [
        "Layers are matched in order so that the sum of their similarity is largest. Similarity is the linear CKA of "
        f"what they leave and of what they add, {on(block.measured)}."
    ]
    if block.gaps:
        lines.append(f"All matched layers together, without any gap, cost {mean_text(block.matched)} nats.")
    if block.control is not None:
        lines.append(f"Control, the reference’s own layers run again: {fmt.number(block.control)} nats.")
    return " ".join(lines)


# --- how the error grows


def growth(block: ActivationGrowth) -> Section:
    """The error by border, and each layer's part in it."""
    means = [*(border.relative for border in block.borders), *(step.fresh for step in block.steps)]
    caption = f"Relative error of the hidden states, {_intervals(means)}"
    found: list[Block] = [
        Note(growth_sentence(block), kind="sentence"),
        _error_chart(block, caption),
        *fold("Every layer: fresh error, amplification", [steps_table(block)]),
        Note(
            "Relative error is the mean over tokens of ‖error‖ / ‖state‖. Fresh: what a layer’s own change does to the "
            "reference’s states. Amplification: what a layer makes of the error that enters it; 1 hands it on as it "
            f"is. Each window’s first token is left out. Measured in float32 {on(block.measured)}."
        ),
    ]
    return Section("growth", "How the error grows", found, "Error growth")


def growth_sentence(block: ActivationGrowth) -> str:
    """How large the last error is, and whether layers make it more than what they add afresh."""
    last, cascade = block.borders[-1].relative, block.cascade
    if not last.mean:
        return "The candidate’s hidden states are the reference’s at every border: there is no error."
    text = f"The last hidden state is off by {mean_text(last, percent=True)}\u00a0% of its size."
    if cascade.mean is None:
        return text
    found = "without an interval, whether it is a cascade is not known"
    if cascade.ci is not None:
        low, high = cascade.ci
        found = "layers amplify or add to each other’s errors: a cascade" if low > 1 else "a cascade is not shown"
        found = "layers damp errors: no cascade" if high < 1 else found
    return f"{text} That is {mean_text(cascade)} times the fresh errors of all layers together: {found}."


def _error_chart(block: ActivationGrowth, caption: str) -> Chart:
    places: list[float] = []
    for border in block.borders:
        place = float(border.candidate)
        # a dropped layer leaves the candidate's border as it was: half a place on
        places.append(place + 0.5 if places and place <= places[-1] else place)
    steps = list(zip(places[1:], block.steps, strict=True))
    relative = [(place, border.relative) for place, border in zip(places, block.borders, strict=True)]
    drawn = layer_curves(
        (
            _series("error of the states", relative),
            _series("fresh error", [(place, step.fresh) for place, step in steps], "other"),
        ),
        title="Relative error by layer border, and what each layer adds to it afresh",
        unit="‖error‖ / ‖state‖",
        last=int(max(places)),
        across="layer border of the candidate",
        marks=[(place, "gap") for place, step in steps if step.gap][:_MOST_MARKS],
    )
    return Chart(caption, drawn)


def _series(name: str, means: Sequence[tuple[float, Mean]], kind: str = "main") -> Series:
    return Series(name, tuple((place, mean.mean, mean.ci) for place, mean in means if mean.mean is not None), kind)


def _intervals(means: Sequence[Mean]) -> str:
    return with_intervals(any(mean.ci for mean in means))


def steps_table(block: ActivationGrowth) -> Table:
    """What each layer, or gap, adds to the error."""
    names = ("Fresh error, %", "Amplification of what enters", "Relative error behind it, %")
    rows = tuple(
        (
            Cell(_step_name(step)),
            mean_cell(step.fresh, percent=True),
            mean_cell(step.amplification, strong=True),
            mean_cell(border.relative, percent=True),
        )
        for step, border in zip(block.steps, block.borders[1:], strict=True)
    )
    return Table("From layer to layer", (Column("Layer", "name"), *(Column(name) for name in names)), rows)


def _step_name(step: ErrorStep) -> str:
    ours, theirs = range(*step.reference), range(*step.candidate)
    if not step.gap:
        return f"{ours[0]}" if ours[0] == theirs[0] else f"{ours[0]}→{theirs[0]}"
    parts = [f"{', '.join(map(str, ours))} dropped"] if ours else []
    parts += [f"{', '.join(map(str, theirs))} inserted"] if theirs else []
    return "; ".join(parts)


# --- where the models look


def attention(block: AttentionShift) -> Section:
    """How far attention moves in each layer."""
    points = [(float(layer.candidate), layer.js) for layer in block.layers]
    drawn = layer_curves(
        [_series("all heads of a layer", points)],
        title="Jensen–Shannon divergence of attention by layer, over its heads",
        unit="nats",
        last=max((layer.candidate for layer in block.layers), default=0),
        across="layer of the candidate",
    )
    caption = f"Divergence of attention by layer, {_intervals([layer.js for layer in block.layers])}"
    found: list[Block] = [
        Note(attention_sentence(block), kind="sentence"),
        Chart(caption, drawn, "Jensen–Shannon, nats per query"),
        Note(
            "Attention distributions over the keys of each query, by transformers’ eager attention in float32, "
            f"{on(block.measured)}."
        ),
    ]
    return Section("attention", "Where the models look", found, "Attention")


def attention_sentence(block: AttentionShift) -> str:
    """How far attention moves, and in which layer most."""
    if not block.layers:
        return "No layer of the two models matches."
    if not block.js.mean:
        return "Every head looks exactly where the reference’s looks."
    worst = max(block.layers, key=lambda layer: layer.js.mean or 0.0)
    where = f"layer {worst.candidate}"
    if worst.reference != worst.candidate:
        where += f" of the candidate ({worst.reference} of the reference)"
    return (
        f"Attention moves by {mean_text(block.js)} nats (Jensen–Shannon) over all heads, most in {where}: "
        f"{mean_text(worst.js)}."
    )
