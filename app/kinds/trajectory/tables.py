"""Every decoder and candidate in tables: parting, amplification, along the way, the texts, the cuts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from markupsafe import Markup

from app.contracts.report import ModelProvenance
from app.kinds.trajectory.report import Band, ShapedDistance, TrajectoryReport
from app.kinds.trajectory.report import Cell as Entry
from app.kinds.trajectory.words import (
    CONCLUSIONS,
    LETTERS,
    first_cells,
    fourth,
    label,
    lettered,
    mean_cell,
    median_of,
    row_name,
    shaping_name,
)
from app.reports import describe
from app.reports import format as fmt
from app.reports.blocks import Block, Cell, Column, Fold, Table
from app.reports.charts.marks import Guide, axis, change_strip, interval_strip
from app.reports.charts.survival import Curve, survival_strip
from app.reports.scales import LinearScale, LogScale
from app.reports.untrusted import visible

_MOST_OPEN = 30  # rows of a table that the page shows unasked
_MOST_WIDE = 6  # columns whose intervals have room beside their means
_MOST_BRIEF = 6  # rows that the short output of a terminal has room for
Spec = tuple[Column, Callable[[Any], Cell]]


def table(
    caption: str,
    first: str,
    rows: Iterable[tuple[str, Any]],
    specs: Sequence[Spec],
    scale: Markup | None = None,
    *,
    brief: bool = False,
) -> Table:
    """A row per named thing. Each column knows how to get its cell from the thing."""
    return Table(
        caption,
        (Column(first, "name"), *(column for column, _ in specs)),
        tuple((Cell(name), *(cell(of) for _, cell in specs)) for name, of in rows),
        axis=scale,
        style="stack strips" if scale or (len(specs) > _MOST_WIDE and not brief) else "stack",
        brief=brief,
    )


def mean(label: str, of: Callable[[Any], Any], *, percent: bool = False, sign: bool = False, priority: int = 0) -> Spec:
    """A column of means with their intervals."""
    return Column(label, priority=priority), lambda one: mean_cell(of(one), percent=percent, sign=sign)


def words(label: str, of: Callable[[Any], str], priority: int = 0) -> Spec:
    """A column of words."""
    return Column(label, "text", priority), lambda one: Cell(of(one))


def drawn(label: str, of: Callable[[Any], Markup]) -> Spec:
    """A column of charts."""
    return Column(label, "chart"), lambda one: Cell(chart=of(one))


def folded(one: Table) -> Block:
    """The table; a long one is opened on demand."""
    return Fold(f"{one.caption}: {len(one.rows)} rows", [one]) if len(one.rows) > _MOST_OPEN else one


def change(title: str, before: float | None, after: float | None, scale: LogScale) -> Markup:
    """KL on the reference's text and on the candidate's own."""
    return change_strip(f"{title}: from {fmt.number(before)} to {fmt.number(after)} nats", before, after, scale)


def _cells(report: TrajectoryReport) -> list[tuple[str, Entry]]:
    return [(row_name(report, cell), cell) for cell in report.cells]


def _factor(label: str, of: Callable[[Entry], Any], *, strong: bool = False) -> Spec:
    def cell(one: Entry) -> Cell:
        factor = fmt.estimate(of(one).value, of(one).ci)
        return Cell(factor.value, factor.interval or "no interval", strong=strong)

    return Column(label), cell


_KL_FACTOR = _factor("KL factor", lambda cell: cell.amplification.kl, strong=True)
_CONCLUSION = words("Decoding", lambda cell: CONCLUSIONS[cell.amplification.conclusion])


def _factor_of(row: tuple[str, Entry]) -> float:
    """Of a cell without a factor, whose text of its own alone diverges or is not finite: more than any."""
    value = row[1].amplification.kl.value
    return math.inf if value is None else value


def largest(report: TrajectoryReport) -> Table:
    """The largest KL factors; so many that a short output has room for them."""
    most = _MOST_BRIEF if len(report.candidates) == 1 else _MOST_BRIEF // 2
    damaged = [row for row in _cells(report) if row[1].amplification.conclusion != "no_damage"]
    rows = sorted(damaged, key=_factor_of, reverse=True)
    specs = [
        (Column("Texts part at token"), median_of),
        mean("KL on its own text", lambda cell: cell.amplification.kl_candidate_text, priority=1),
        _KL_FACTOR,
        _CONCLUSION,
    ]
    caption = "The largest KL factors" if len(report.cells) > most else "KL factors"
    return table(caption, "Decoder", rows[:most], specs, brief=True)


def candidates(report: TrajectoryReport) -> Table:
    """The candidates on the reference's texts."""
    return table(
        "The candidates, on the reference’s texts",
        "",
        [(LETTERS[number], run) for number, run in enumerate(report.candidates)],
        [
            words("Changed by", lambda run: _changed_by(report, run.model)),
            words("Severity", lambda run: str(run.severity)),
            mean("Excess KL, nats", lambda run: run.excess_kl),
            (
                Column("KL, p99", priority=3),
                lambda run: Cell(
                    fmt.number(run.blocks.divergence.kl.p99),
                    f"{fmt.count(lost)} not finite" if (lost := run.blocks.nonfinite_positions) else "",
                ),
            ),
            mean("Same first choice, %", lambda run: run.blocks.top1_agreement, percent=True, priority=2),
            mean("Perplexity ratio", lambda run: run.blocks.perplexity.ratio, priority=2),
            mean("Entropy of q, nats", lambda run: run.blocks.entropy.candidate, priority=3),
        ],
        brief=True,
    )


def _changed_by(report: TrajectoryReport, model: ModelProvenance) -> str:
    """A candidate's recipe; its alias too if that is not the reference's."""
    same = model.model == report.provenance.reference.model
    return visible((describe.recipe(model.recipe) if same else "") or describe.model(model))


def domains(report: TrajectoryReport) -> list[Table]:
    """KL of every candidate by domain; none if there is one domain."""
    if len(report.domains) < 2:
        return []

    def kl(number: int) -> Spec:
        blocks = report.candidates[number].blocks
        return mean(LETTERS[number], lambda row: one.divergence.kl if (one := blocks.domains.get(row[0])) else None)

    return [
        table(
            "KL by domain of the prompts, on the reference’s texts, nats",
            "Domain",
            [(visible(name), (name, block)) for name, block in report.domains.items()],
            [
                (Column("Tokens"), lambda row: Cell(fmt.count(row[1].tokens))),
                *(kl(number) for number in range(len(report.candidates))),
            ],
        )
    ]


def curve(report: TrajectoryReport, cell: Entry, name: str) -> Curve:
    """How long the texts of a cell stay the same."""
    return Curve(name, tuple((one.tokens, one.share, *one.ci) for one in cell.survival), cell.candidate)


def parting(report: TrajectoryReport) -> Table:
    """Where the two texts of a prompt part."""
    most = report.most_tokens

    def strip(cell: Entry) -> Markup:
        name = row_name(report, cell)
        return survival_strip(f"{name}: texts still the same", curve(report, cell, name), most)

    return table(
        "Where the texts part",
        "Decoder",
        _cells(report),
        [
            drawn("Same so far", strip),
            (Column("First different token, median"), median_of),
            mean("Shared prefix, tokens", lambda cell: cell.first_divergence.shared_prefix),
            mean("Parted, %", lambda cell: cell.first_divergence.diverged, percent=True),
        ],
        axis(LinearScale(0.0, float(max(1, most))), "generated tokens, linear axis"),
    )


def edits(report: TrajectoryReport) -> Table:
    """Edit distances by length."""

    def at(length: int) -> Spec:
        return mean(
            fmt.count(length),
            lambda cell: next((one.distance for one in cell.edit_distance if one.tokens == length), None),
            percent=True,
        )

    lengths = sorted({one.tokens for cell in report.cells for one in cell.edit_distance})
    caption = "Token edit distance, % of the length, after so many tokens"
    return table(caption, "Decoder", _cells(report), [at(length) for length in lengths])


def amplification(report: TrajectoryReport) -> Table:
    """Both factors of every cell, and the two means of the KL factor."""
    ratios = [cell.amplification.kl for cell in report.cells]
    scale = LogScale.around(1.0, *(value for one in ratios for value in (one.value, *(one.ci or ())) if value))

    def strip(cell: Entry) -> Markup:
        kl = cell.amplification.kl
        title = f"{row_name(report, cell)}: {fmt.estimate(kl.value, kl.ci)}"
        return interval_strip(title, kl.value, kl.ci, scale, [Guide(1.0, "base")])

    return table(
        "Amplification by decoder",
        "Decoder",
        _cells(report),
        [
            mean("KL on p’s text, nats", lambda cell: cell.amplification.kl_reference_text),
            mean("KL on q’s text, nats", lambda cell: cell.amplification.kl_candidate_text),
            _KL_FACTOR,
            drawn("Factor with 95 % interval", strip),
            _CONCLUSION,
            _factor("Token factor", lambda cell: cell.amplification.tokens),
        ],
        axis(scale, "KL factor, logarithmic axis; the line is 1"),
    )


def along(report: TrajectoryReport) -> Table:
    """KL and entropy of the first decoder by position."""
    cells = first_cells(report)
    bands = [(cell, band) for cell in cells for band in cell.along]
    both = [one.mean for _, band in bands for one in (band.kl_reference_text, band.kl_candidate_text)]
    scale = LogScale.around(*[value for value in both if value])

    def name(cell: Entry, band: Band) -> str:
        place = f"{fmt.count(band.first)}\u2060–\u2060{fmt.count(band.last)}"  # does not break
        return lettered(report, place, cell.candidate)

    return table(
        "By position in the generated text",
        "Tokens",
        [(name(cell, band), (name(cell, band), band)) for cell, band in bands],
        [
            mean("KL on the reference’s text, nats", lambda row: row[1].kl_reference_text),
            mean("KL on its own text, nats", lambda row: row[1].kl_candidate_text),
            drawn(
                "From the reference’s text ○ to its own ●",
                lambda row: change(row[0], row[1].kl_reference_text.mean, row[1].kl_candidate_text.mean, scale),
            ),
            mean("Tokens that differ, %", lambda row: row[1].disagreement, percent=True),
            mean("Entropy of p on its text, nats", lambda row: row[1].entropy_reference, priority=1),
            mean("Entropy of q on its text, nats", lambda row: row[1].entropy_candidate, priority=1),
        ],
        axis(scale, "KL in nats per token, logarithmic axis; ring: reference’s text, dot: its own"),
    )


def changes(report: TrajectoryReport) -> Table:
    """Candidate minus reference."""
    rows = [(row_name(report, cell), cell.change) for cell in report.cells]
    return table("Candidate minus reference, paired by prompt", "Decoder", rows, _statistics("points", sign=True))


def texts(report: TrajectoryReport) -> Table:
    """What the texts of each model look like."""
    rows: list[tuple[str, Any]] = []
    for of in report.reference_texts:
        rows.append((f"{label(of.decoder)}, reference", of.text))
        rows += [(name, cell.text) for name, cell in _cells(report) if cell.decoder == of.decoder]
    return table("What the texts look like", "Decoder", rows, _statistics("%"))


def _statistics(unit: str, *, sign: bool = False) -> list[Spec]:
    return [
        mean("Length, tokens", lambda text: text.length, sign=sign),
        mean(f"Ended itself, {unit}", lambda text: text.ended, percent=True, sign=sign, priority=3),
        mean(f"Repeated 4-grams, {unit}", lambda text: fourth(text.repetition), percent=True, sign=sign),
        mean(f"Distinct tokens, {unit}", lambda text: text.distinct, percent=True, sign=sign, priority=2),
        mean("Own entropy, nats", lambda text: text.entropy, sign=sign, priority=1),
        mean("Own surprise, nats", lambda text: text.surprise, sign=sign, priority=2),
        mean("Surprise under p, nats", lambda text: text.reference_surprise, sign=sign, priority=1),
    ]


def decoders(report: TrajectoryReport) -> Table:
    """Which engine ran which decoder."""
    chance = {"none": "nothing is drawn", "common": "one number for all models"}
    return table(
        "The decoders",
        "Decoder",
        [(shaping_name(run), run) for run in report.decoders],
        [
            words("Run by", lambda run: "vLLM" if run.engine == "vllm" else "our loop over transformers"),
            words("Chance, at the same step", lambda run: chance[run.random]),
        ],
    )


def cuts(report: TrajectoryReport) -> Table:
    """How far the models are once both distributions went through a decoder's cut."""
    tvs = [value for one in report.distances for value in (one.tv.mean, *(one.tv.ci or ())) if value is not None]
    scale = LinearScale(0.0, max([*tvs, 1e-6]) * 1.05)

    def strip(one: ShapedDistance) -> Markup:
        title = f"{cut_name(report, one)}: TV {fmt.estimate(one.tv.mean, one.tv.ci)}"
        return interval_strip(title, one.tv.mean, one.tv.ci, scale)

    return table(
        "Distances after a decoder’s cut",
        "After",
        [(cut_name(report, one), one) for one in report.distances],
        [
            mean("KL(p‖q), nats", lambda one: one.kl),
            mean("Infinite, %", lambda one: one.infinite, percent=True),
            mean("TV", lambda one: one.tv),
            drawn("TV with 95 % interval", strip),
            mean("Top-1 agreement, %", lambda one: one.top1, percent=True, priority=1),
        ],
        axis(scale, "total variation, linear axis"),
    )


def cut_name(report: TrajectoryReport, one: ShapedDistance) -> str:
    """The cut, and the candidate's letter if there are several."""
    return lettered(report, shaping_name(one), one.candidate)
