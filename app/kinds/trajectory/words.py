"""What a trajectory report says, and how it names decoders, candidates and numbers."""

from __future__ import annotations

from typing import Final

from app.contracts.report import Mean, SeverityVerdict
from app.kinds.trajectory.report import Cell as Entry
from app.kinds.trajectory.report import DecoderRun, ShapedDistance, TrajectoryReport
from app.reports import format as fmt
from app.reports.blocks import Cell
from app.reports.untrusted import visible

LETTERS: Final = "ABCD"
CONCLUSIONS: Final = {"amplifies": "amplifies", "damps": "damps", "open": "not shown", "no_damage": "no damage"}
_HEADINGS: Final = {
    "amplifies": "Decoding amplifies the damage",
    "damps": "Decoding damps the damage",
    "open": "Amplification not shown",
    "no_damage": "The same text",
}
_LABELS: Final = {"diverse_beam": "diverse beam", "fsd": "FSD", "fsd_d": "FSD-d", "eta": "η"}
# The parameter whose value is behind a decoder's name, without its own name.
_MAIN: Final = {
    "temperature": "temperature",
    "top_p": "p",
    "top_k": "k",
    "min_p": "p",
    "eta": "epsilon",
    "typical": "mass",
    "beam": "beams",
    "diverse_beam": "beams",
    "mirostat": "tau",
}


def label(name: str) -> str:
    """A decoder's name for people."""
    return visible(_LABELS.get(name, name.replace("_", "-")))


def first_cells(report: TrajectoryReport) -> list[Entry]:
    """The cells of the first decoder, one per candidate."""
    return [cell for cell in report.cells if cell.decoder == report.decoders[0].name]


def lettered(report: TrajectoryReport, name: str, candidate: int) -> str:
    """`name`, with the candidate's letter if there are several."""
    return f"{name} · {LETTERS[candidate]}" if len(report.candidates) > 1 else name


def row_name(report: TrajectoryReport, cell: Entry) -> str:
    """Decoder and candidate of a cell."""
    return lettered(report, label(cell.decoder), cell.candidate)


def shaping_name(run: ShapedDistance | DecoderRun) -> str:
    """`top-p 0.95`: the name and the parameters that are not neutral."""
    name = run.shaping if isinstance(run, ShapedDistance) else run.name
    main = _MAIN.get(name)
    shown = [
        f"{'' if key == main else key.replace('_', ' ') + ' '}{fmt.short(value) if isinstance(value, float) else value}"
        for key, value in run.parameters.items()
        if key == main or not (key == "temperature" and value == 1.0)
    ]
    return visible(f"{label(name)} {', '.join(shown)}".strip())


def mean_cell(mean: Mean | None, *, percent: bool = False, sign: bool = False, strong: bool = False) -> Cell:
    """A mean and its interval."""
    if mean is None:
        return Cell(fmt.NONE)
    text = fmt.estimate(mean.mean, mean.ci, percent=percent)
    plus = "+" if sign and mean.mean is not None and mean.mean > 0 else ""
    return Cell(plus + text.value, text.interval or "", strong=strong)


def median_of(cell: Entry) -> Cell:
    """The median first different token, and its interval; texts that have not parted are beyond the end."""
    length = cell.survival[-1].tokens if cell.survival else 0
    low, high, middle = (
        f"> {fmt.count(length)}" if value is None else fmt.count(value)
        for value in (*cell.first_divergence.median_ci, cell.first_divergence.median)
    )
    return Cell(middle, f"[{low}, {high}]", strong=True)


def fourth(repetition: dict[str, Mean]) -> Mean | None:
    """The share of repeated 4-grams, or its change."""
    return repetition.get("4")


def heading(report: TrajectoryReport) -> str:
    """What the KL factor of the first decoder shows."""
    return _HEADINGS[first_cells(report)[0].amplification.conclusion]


def by_single_steps(report: TrajectoryReport) -> str:
    """The damage before any text is generated freely."""
    kl = fmt.estimate(report.divergence.kl.mean, report.divergence.kl.ci)
    who = f"candidate {LETTERS[0]}" if len(report.candidates) > 1 else "the candidate"
    return f"By single steps, on the reference’s own texts, {who} loses {kl} nats per token."


def sentence(report: TrajectoryReport) -> str:
    """The answer of the first decoder about the first candidate."""
    cell = first_cells(report)[0]
    name = label(cell.decoder)
    who = "candidate A" if len(report.candidates) > 1 else "the candidate"
    same = cell.first_divergence.diverged.mean == 0
    if same and cell.amplification.conclusion == "no_damage":
        return f"With {name} decoding {who} writes the reference’s texts, token by token, at a KL of exactly 0."
    facts = [_growth(cell, name, who, same=same), *([] if same else [_parting(cell)]), _severity(report.decision)]
    return " ".join(facts)


def _growth(cell: Entry, name: str, who: str, *, same: bool) -> str:
    found = cell.amplification
    if found.kl.value is None:
        return f"With {name} decoding there is no factor: the KL of {who} on the reference’s texts is 0 or not finite."
    own, other = (fmt.number(one.mean) for one in (found.kl_candidate_text, found.kl_reference_text))
    opening = {
        "amplifies": f"Decoding with {name} amplifies the damage.",
        "damps": f"Decoding with {name} damps the damage.",
    }.get(found.conclusion, f"Whether decoding with {name} amplifies the damage is not shown.")
    if same:
        return f"{opening} {_initial(who)} writes the reference’s texts, token by token, at {other} nats per token."
    factor = fmt.estimate(found.kl.value, found.kl.ci)
    interval = f" (95 % interval {factor.interval})" if factor.interval else ""
    few = " Too few texts part and go on for an interval." if not interval and cell.prompts > 1 else ""
    return (
        f"{opening} On its own text the KL of {who} is {factor.value} times{interval} its KL on the reference’s text: "
        f"{own} against {other} nats per token.{few}"
    )


def _parting(cell: Entry) -> str:
    found = cell.first_divergence
    if found.median is None:
        return f"Of the texts {fmt.estimate(found.diverged.mean, found.diverged.ci, percent=True)} % part."
    median = median_of(cell)
    return f"Half of the texts part by token {median.text} {median.note}."


def _severity(decision: SeverityVerdict) -> str:
    classes = decision.classes
    named = " or ".join(classes) if len(classes) < 3 else f"anything from {classes[0]} to {classes[-1]}"
    return f"By single steps the damage is {named}."


def _initial(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
