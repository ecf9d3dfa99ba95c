"""Which layer of the candidate is which of the reference's, and what each gap costs."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from app.contracts.report import Mean
from app.kinds.attribute.blocks import LayerAlignment, LayerGap, Stitched, UnmatchedLayer, WidthMaps
from app.web import format as fmt
from app.web.charts import Guide, axis, interval_strip
from app.web.charts_internals import Cells, Matched, alignment_picture, heat_map
from app.web.heat import HeatScale
from app.web.scales import LinearScale
from app.web.sections.words_of_internals import mean_cell, on
from app.web.tables import Cell, Column, Table

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
    parts = []
    for gap in block.gaps:
        nats = _nats(gap)
        parts.append(_what(gap) + ("" if nats is None else f" ({fmt.estimate(nats.mean, nats.ci)} nats)"))
    total = fmt.estimate(block.total.mean, block.total.ci)
    return f"Without a partner: {'; '.join(parts)}. The whole candidate loses {total} nats a token."


def _nats(gap: LayerGap) -> Mean | None:
    """What a gap costs, as the ranking has it: in the reference, as it is or through a map that shows it; else, of
    added layers where the widths differ, in the candidate; else through a map that does not lose as much."""
    stitched = gap.stitched
    if stitched is not None and (stitched.shown or (gap.saved is None and not stitched.lost)):
        return gap.nats or stitched.nats
    return gap.nats or gap.saved


def _through(gap: LayerGap) -> Mean | None:
    """KL of the reference with it, as it is or through a map."""
    return gap.stitched.nats if gap.nats is None and gap.stitched is not None else gap.nats


def _lost(stitched: Stitched) -> str:
    """What the map itself loses, in words."""
    if stitched.nats.mean is None:
        return "logits are not finite"
    if stitched.control.mean is None:
        return "the map alone leaves logits that are not finite: these nats prove nothing"
    told = f"the map alone loses {fmt.estimate(stitched.control.mean, stitched.control.ci)}"
    return f"{told}, no less than that: these nats prove nothing" if stitched.lost else told


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
        through = _through(gap)
        values += [value for value in (through.mean, *(through.ci or ())) if value is not None] if through else []
    scale = LinearScale(min(values), max(values) * 1.06 or 1.0)
    rows = []
    for gap in block.gaps:
        nats = _through(gap)
        told = "" if nats is None else str(fmt.estimate(nats.mean, nats.ci))
        stable = "not resampled: too few documents"
        if gap.stability is not None and block.resamplings != 0:
            stable = f"found again in {fmt.percent(gap.stability)} % of resamplings"
        if gap.nats is None and gap.stitched is not None:
            stable += f"; through a map, {_lost(gap.stitched)}"
        rows.append(
            (
                Cell(_what(gap), stable),
                mean_cell(nats, strong=True),
                Cell(
                    chart=interval_strip(
                        f"{_what(gap)}: {told} nats",
                        nats.mean if nats else None,
                        nats.ci if nats else None,
                        scale,
                        [Guide(0.0, "base")],
                    )
                ),
                _share(gap),
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


def _share(gap: LayerGap) -> Cell:
    """Of the KL beside it; where there is none, of what is saved."""
    told = gap.stitched if gap.nats is None and gap.stitched is not None else gap
    share = fmt.estimate(told.share, told.share_ci, percent=True)
    return Cell(share.value, share.interval or "")


def _note(block: LayerAlignment) -> str:
    text = (
        "Layers are matched in order so that the sum of their likeness is largest: linear CKA of what they leave and "
        f"of what they add, over the same tokens, {on(block.measured)}. "
    )
    if block.matched is not None:
        matched = fmt.estimate(block.matched.mean, block.matched.ci)
        text += f"All matched layers together, without any gap, cost {matched} nats. "
    if block.additivity is not None and block.gaps:
        text += f"The whole is {fmt.estimate(block.additivity, block.additivity_ci)} times the sum of its parts. "
    if block.control is not None:
        text += f"Control, the reference’s own layers run again: {fmt.number(block.control)} nats."
    if block.matched_stitched is not None:
        kept = block.matched_stitched
        nats = fmt.estimate(kept.nats.mean, kept.nats.ci)
        text += f" What both models have costs {nats} nats through a map between the two widths; {_lost(kept)}."
    if block.gaps and (block.maps is not None or block.not_stitched or block.matched is None):
        text = (
            f"{text.rstrip()} The two models have hidden states of different widths, so no layer of one can be run in "
            "the other as it is: dropped layers are left out of the reference, added ones of the candidate."
        )
    if block.maps is not None:
        text += _maps(block, block.maps)
    elif block.not_stitched:
        text += f" Nothing was run through a map between them: {block.not_stitched}."
    return text.strip()


def _maps(block: LayerAlignment, maps: WidthMaps) -> str:
    """What was run through maps, and what these are."""
    ran = ["the candidate’s run in the reference"] if any(gap.stitched is not None for gap in block.gaps) else []
    if block.matched_stitched is not None:
        ran.append(
            "for what both models have the reference’s dropped ones run in the candidate without its added layers"
        )
    told = "; ".join(ran)
    return (
        f" {told[:1].upper()}{told[1:]}, through an affine map there and back, fitted on {fmt.count(maps.tokens)} "
        "tokens of other text than is scored (its control: the map with no layer swapped)."
    )
