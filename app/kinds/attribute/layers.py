"""Which layer of the candidate is which of the reference's, and what each gap costs."""

from __future__ import annotations

from typing import Final

from markupsafe import Markup

from app.kinds.attribute.blocks import LayerAlignment, LayerGap, UnmatchedLayer
from app.kinds.attribute.words import mean_cell, mean_text, on
from app.reports import format as fmt
from app.reports.blocks import Block, Cell, Chart, Column, Note, Section, Table, filled, fold
from app.reports.charts.internals import Cells, Matched, alignment_picture, heat_map
from app.reports.charts.marks import Guide, axis, interval_strip
from app.reports.heat import HeatScale
from app.reports.scales import LinearScale

# Similarity is a share: its steps are even.
_STEPS: Final = HeatScale((0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9))


def layers(block: LayerAlignment) -> Section:
    """Both models' layers side by side, the gaps, and how similar every pair is."""
    sentence = alignment_sentence(block)
    similarity = Chart("Linear CKA, matched pairs framed", _similarity(block), "0 to 1")
    found: list[Block] = [
        Note(sentence, kind="sentence"),
        Chart("Layers of the reference (above) and of the candidate (below)", _picture(block, sentence)),
        *filled(gaps_table(block)),
        *fold("How similar every pair of layers is", [similarity]),
        Note(_note(block)),
    ]
    return Section("alignment", "Which layer is which", found, "Layers")


def alignment_sentence(block: LayerAlignment) -> str:
    """Which layers have no partner, and what each gap costs."""
    if not block.gaps:
        return f"All {block.reference_layers} layers of the two models match, in order."
    parts = [f"{_named(gap)} ({mean_text(gap.nats)} nats)" for gap in block.gaps]
    return f"Without a partner: {'; '.join(parts)}. The whole candidate loses {mean_text(block.total)} nats per token."


def _picture(block: LayerAlignment, sentence: str) -> Markup:
    alone = [layer for gap in block.gaps for layer in gap.layers]
    return alignment_picture(
        Matched(
            block.reference_layers,
            block.candidate_layers,
            tuple((pair.reference, pair.candidate) for pair in block.pairs),
            {one.layer: _name(one) for one in alone if one.kind == "dropped"},
            {one.layer: _name(one) for one in alone if one.kind != "dropped"},
        ),
        title="Layers of the reference above, of the candidate below, lines between those that match",
        desc=sentence,
    )


def _similarity(block: LayerAlignment) -> Markup:
    return heat_map(
        Cells(
            tuple(map(str, range(block.reference_layers))),
            tuple(map(str, range(block.candidate_layers))),
            block.similarity,
            "reference layer",
            "candidate layer",
            "CKA",
            frozenset((pair.reference, pair.candidate) for pair in block.pairs),
        ),
        "Similarity of every pair of layers; pairs that match are framed",
        scale=_STEPS,
    )


def _named(gap: LayerGap) -> str:
    return ", ".join(map(_name, gap.layers))


def _name(layer: UnmatchedLayer) -> str:
    if layer.kind == "dropped":
        return f"layer {layer.layer} dropped"
    how = {"identity": ", adds nothing", "duplicate": f", a copy of {layer.of}"}.get(layer.kind, "")
    return f"layer {layer.layer} inserted{how}"


def gaps_table(block: LayerAlignment) -> Table:
    """What each gap costs alone."""
    values = [0.0]
    for gap in block.gaps:
        values += [value for value in (gap.nats.mean, *(gap.nats.ci or ())) if value is not None]
    scale = LinearScale(min(values), max(values) * 1.06 or 1.0)
    rows = []
    for gap in block.gaps:
        name, share = _named(gap), fmt.estimate(gap.share, gap.share_ci, percent=True)
        strip = interval_strip(
            f"{name}: {mean_text(gap.nats)} nats", gap.nats.mean, gap.nats.ci, scale, [Guide(0.0, "base")]
        )
        stable = "not resampled: too few documents"
        if gap.stability is not None:
            stable = f"found again in {fmt.percent(gap.stability)} % of resamplings"
        similarity = f"{fmt.number(gap.similarity_before)} → {fmt.number(gap.similarity_after)}"
        rows.append(
            (
                Cell(name, stable),
                mean_cell(gap.nats, strong=True),
                Cell(chart=strip),
                Cell(share.value, share.interval or ""),
                mean_cell(gap.saved),
                Cell(similarity),
            )
        )
    columns = (
        Column("Layers", "name"),
        Column("KL of the reference with it, nats"),
        Column("With 95 % interval", "chart"),
        Column("Of the whole KL, %"),
        Column("Saved if it is undone, nats", priority=1),
        Column("CKA of states, before → after", priority=2),
    )
    return Table("Each gap alone", columns, tuple(rows), axis(scale, "KL in nats, linear axis"), "stack strips")


def _note(block: LayerAlignment) -> str:
    lines = [
        "Layers are matched in order so that the sum of their similarity is largest. Similarity is the linear CKA of "
        f"what they leave and of what they add, over the same tokens, {on(block.measured)}."
    ]
    if block.gaps:
        lines.append(f"All matched layers together, without any gap, cost {mean_text(block.matched)} nats.")
    if block.additivity is not None and block.gaps:
        ratio = fmt.estimate(block.additivity, block.additivity_ci)
        lines.append(f"The whole is {ratio} times the sum of its parts.")
    if block.control is not None:
        lines.append(f"Control, the reference’s own layers run again: {fmt.number(block.control)} nats.")
    return " ".join(lines)
