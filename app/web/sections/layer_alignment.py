"""Which layer of the candidate is which of the reference's, and what each gap costs."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from app.kinds.attribute.blocks import LayerAlignment, LayerGap, UnmatchedLayer
from app.reports.blocks import Cell, Column, Table
from app.web import format as fmt
from app.web.charts import Guide, axis, interval_strip
from app.web.charts_internals import Cells, Matched, alignment_picture, heat_map
from app.web.heat import HeatScale
from app.web.scales import LinearScale
from app.web.sections.words_of_internals import mean_cell, on

# Likeness is a share: its steps are even.
_STEPS = HeatScale((0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9))


@dataclass(frozen=True)
class AlignmentView:
    """What the page draws."""

    sentence: str
    picture: Markup
    gaps: Table
    similarity: Markup
    note: str


def layer_alignment(block: LayerAlignment) -> AlignmentView:
    """The view of a block."""
    alone = {"reference": dict[int, str](), "candidate": dict[int, str]()}
    for gap in block.gaps:
        for layer in gap.layers:
            alone["reference" if layer.kind == "dropped" else "candidate"][layer.layer] = _name(layer)
    sentence = alignment_sentence(block)
    return AlignmentView(
        sentence=sentence,
        picture=alignment_picture(
            Matched(
                block.reference_layers,
                block.candidate_layers,
                tuple((pair.reference, pair.candidate) for pair in block.pairs),
                alone["reference"],
                alone["candidate"],
            ),
            title="Layers of the reference above, of the candidate below, lines between those that match",
            desc=sentence,
        ),
        gaps=_gaps(block),
        similarity=heat_map(
            Cells(
                tuple(map(str, range(block.reference_layers))),
                tuple(map(str, range(block.candidate_layers))),
                block.similarity,
                "reference layer",
                "candidate layer",
                "CKA",
                frozenset((pair.reference, pair.candidate) for pair in block.pairs),
            ),
            "Likeness of every pair of layers; pairs that match are framed",
            scale=_STEPS,
        ),
        note=_note(block),
    )


def alignment_sentence(block: LayerAlignment) -> str:
    """Which layers have no partner, and what each gap costs."""
    if not block.gaps:
        return f"All {block.reference_layers} layers of the two models stand for each other, in order."
    parts = [f"{_what(gap)} ({fmt.estimate(gap.nats.mean, gap.nats.ci)} nats)" for gap in block.gaps]
    total = fmt.estimate(block.total.mean, block.total.ci)
    return f"Without a partner: {'; '.join(parts)}. The whole candidate loses {total} nats a token."


def _what(gap: LayerGap) -> str:
    return ", ".join(_name(layer) for layer in gap.layers)


def _name(layer: UnmatchedLayer) -> str:
    if layer.kind == "dropped":
        return f"layer {layer.layer} dropped"
    if layer.kind == "identity":
        return f"layer {layer.layer} inserted, adds nothing"
    if layer.kind == "duplicate":
        return f"layer {layer.layer} inserted, a copy of {layer.of}"
    return f"layer {layer.layer} inserted"


def _gaps(block: LayerAlignment) -> Table:
    values = [0.0]
    for gap in block.gaps:
        values += [value for value in (gap.nats.mean, *(gap.nats.ci or ())) if value is not None]
    scale = LinearScale(min(values), max(values) * 1.06 or 1.0)
    rows = []
    for gap in block.gaps:
        nats = fmt.estimate(gap.nats.mean, gap.nats.ci)
        share = fmt.estimate(gap.share, gap.share_ci, percent=True)
        stable = "not resampled: too few documents"
        if gap.stability is not None:
            stable = f"found again in {fmt.percent(gap.stability)} % of resamplings"
        rows.append(
            (
                Cell(_what(gap), stable),
                mean_cell(gap.nats, strong=True),
                Cell(
                    chart=interval_strip(
                        f"{_what(gap)}: {nats} nats", gap.nats.mean, gap.nats.ci, scale, [Guide(0.0, "base")]
                    )
                ),
                Cell(share.value, share.interval or ""),
                mean_cell(gap.saved),
                Cell(f"{fmt.number(gap.similarity_before)} → {fmt.number(gap.similarity_after)}"),
            )
        )
    return Table(
        caption="Each gap alone",
        columns=(
            Column("Layers", "name"),
            Column("KL of the reference with it, nats"),
            Column("With 95 % interval", "chart"),
            Column("Of the whole KL, %"),
            Column("Saved where it is undone, nats"),
            Column("CKA of states, before → after"),
        ),
        rows=tuple(rows),
        axis=axis(scale, "KL in nats, linear axis"),
    )


def _note(block: LayerAlignment) -> str:
    text = (
        "Layers are matched in order so that the sum of their likeness is largest: linear CKA of what they leave and "
        f"of what they add, over the same tokens, {on(block.measured)}. "
    )
    if block.gaps:
        matched = fmt.estimate(block.matched.mean, block.matched.ci)
        text += f"All matched layers together, without any gap, cost {matched} nats. "
    if block.additivity is not None and block.gaps:
        text += f"The whole is {fmt.estimate(block.additivity, block.additivity_ci)} times the sum of its parts. "
    if block.control is not None:
        text += f"Control, the reference’s own layers run again: {fmt.number(block.control)} nats."
    return text.strip()
