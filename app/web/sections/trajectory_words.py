"""How the parts of a trajectory report are named: decoders, candidates, what was concluded."""

from __future__ import annotations

from typing import Final

from app.contracts.report import Mean
from app.kinds.trajectory.report import Cell as Entry
from app.kinds.trajectory.report import DecoderRun, Ratio, ShapedDistance, TrajectoryReport
from app.reports.blocks import Cell
from app.web import describe
from app.web import format as fmt
from app.web.untrusted import visible

LETTERS: Final = "ABCD"
UNKNOWN: Final = Mean(mean=None, ci=None)


DECODERS: Final = {
    "greedy": "greedy",
    "beam": "beam",
    "diverse_beam": "diverse beam",
    "contrastive": "contrastive",
    "fsd": "FSD",
    "fsd_d": "FSD-d",
    "temperature": "temperature",
    "top_p": "top-p",
    "top_k": "top-k",
    "min_p": "min-p",
    "eta": "η",
    "typical": "typical",
    "mirostat": "mirostat",
}


CONCLUSIONS: Final = {
    "amplifies": "amplifies",
    "damps": "damps",
    "open": "not shown",
    "no_damage": "no damage",
}


# The parameter that a decoder is known by: its value stands behind the name.
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
    return DECODERS.get(name, visible(name))


def title_of(report: TrajectoryReport, candidate: int) -> str:
    """A candidate in words; with its letter where there are several."""
    told = visible(describe.model(report.candidates[candidate].model))
    return f"{LETTERS[candidate]}: {told}" if len(report.candidates) > 1 else told


def row_name(report: TrajectoryReport, cell: Entry) -> str:
    """Decoder, and the candidate's letter where there are several."""
    name = label(cell.decoder)
    return f"{name} · {LETTERS[cell.candidate]}" if len(report.candidates) > 1 else name


def shaping_name(distance: ShapedDistance | DecoderRun) -> str:
    """`top-p 0.95`: the name and the parameters that are not their neutral value."""
    name = distance.shaping if isinstance(distance, ShapedDistance) else distance.name
    told = [
        f"{'' if key == _MAIN.get(name) else key.replace('_', ' ') + ' '}"
        f"{fmt.short(value) if isinstance(value, float) else value}"
        for key, value in distance.parameters.items()
        if key == _MAIN.get(name) or not (key == "temperature" and value == 1.0)
    ]
    return visible(f"{label(name)} {', '.join(told)}".strip())


def first_cells(report: TrajectoryReport) -> list[Entry]:
    """The cells of the first decoder, one a candidate."""
    return [cell for cell in report.cells if cell.decoder == report.decoders[0].name]


def factor(ratio: Ratio) -> fmt.Estimate:
    """A ratio and its interval."""
    return fmt.estimate(ratio.value, ratio.ci)


def kl_means(cell: Entry) -> tuple[Mean, Mean]:
    """KL on the reference's text and on the candidate's own, at the positions that the KL factor is over."""
    return cell.amplification.kl_reference_text, cell.amplification.kl_candidate_text


def median_of(cell: Entry) -> tuple[str, str]:
    """The median first differing token, and its interval; texts that have not parted are beyond the end."""
    length = cell.survival[-1].tokens if cell.survival else 0
    found = cell.first_divergence

    def told(value: int | None) -> str:
        return f"> {fmt.count(length)}" if value is None else fmt.count(value)

    low, high = found.median_ci
    return told(found.median), f"[{told(low)}, {told(high)}]"


def fourth(repetition: dict[str, Mean]) -> Mean:
    """The share of repeated 4-grams, or its change."""
    return repetition.get("4", UNKNOWN)


def mean_cell(mean: Mean, *, percent: bool = False, sign: bool = False) -> Cell:
    """A mean above its interval."""
    text = fmt.estimate(mean.mean, mean.ci, percent=percent)
    plus = "+" if sign and mean.mean is not None and mean.mean > 0 else ""
    return Cell(plus + text.value, text.interval or "")
