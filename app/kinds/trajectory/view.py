"""The report of a trajectory as blocks: does decoding amplify the damage, where texts part, at which tokens."""

from __future__ import annotations

from app.kinds.trajectory import tables
from app.kinds.trajectory.classes import kinds
from app.kinds.trajectory.report import Ratio, Sample, TrajectoryReport
from app.kinds.trajectory.words import (
    LETTERS,
    by_single_steps,
    first_cells,
    heading,
    label,
    lettered,
    median_of,
    row_name,
)
from app.reports import describe
from app.reports import format as fmt
from app.reports.blocks import Block, Chart, Code, Columns, Figure, Figures, Note, Section, filled
from app.reports.charts.survival import survival_chart
from app.reports.common import closing, headline, title
from app.reports.untrusted import visible, with_breaks

_LEGEND = 40  # characters of a candidate's name that the legend of a chart has room for on a telephone


def blocks(report: TrajectoryReport) -> list[Block]:
    """What the report shows, the effect of decoding first."""
    first = label(report.decoders[0].name)
    texts = [*map(tables.folded, (tables.changes(report), tables.texts(report))), tables.decoders(report)]
    growth = (tables.amplification(report), Note(_AMPLIFICATION))
    return [
        title(report, what="trajectory report", heading=heading(report)),
        Section("free", heading(report), _found(report), "Running free"),
        Section("parting", "Where the texts part", _parting(report, first)),
        Section("amplification", "Amplification", growth),
        Section("along", f"Along the way, {first}", (tables.along(report),), "Along the way"),
        Section("kinds", "Which tokens", kinds(report)),
        Section("texts", "The texts", texts, "Texts"),
        *_cuts(report, first),
        *_samples(report),
        headline(
            report,
            chart_title="Excess KL over the noise floor on the reference’s own texts",
            sentence=by_single_steps(report),
            nav="By single steps",
        ),
        *closing(report),
    ]


_AMPLIFICATION = (
    "KL factor: the sum of KL on the candidate’s own text over the sum on the reference’s text. Token factor: the "
    "share of different tokens over the share of single-step disagreements. Both are over the positions that both "
    "texts have. A factor has no interval if fewer than six prompts have something in both sums. Texts that never part "
    "add nothing."
)


def _found(report: TrajectoryReport) -> list[Block]:
    several = len(report.candidates) > 1
    return [
        Note(visible(report.verdict), kind="sentence", brief=True),
        Figures(_figures(report), brief=not several),
        *([tables.candidates(report)] if several else []),
        *filled(tables.largest(report)),
        Note(scope(report)),
        *(tables.domains(report) if several else []),
    ]


def _figures(report: TrajectoryReport) -> tuple[Figure, ...]:
    cell = first_cells(report)[0]
    found, median = cell.amplification, median_of(cell)
    other, own = (fmt.estimate(one.mean, one.ci) for one in (found.kl_reference_text, found.kl_candidate_text))
    parted = fmt.estimate(cell.first_divergence.diverged.mean, cell.first_divergence.diverged.ci, percent=True)

    def factor(name: str, of: Ratio, unit: str, note: str) -> Figure:
        shown = fmt.estimate(of.value, of.ci)
        return Figure(name, shown.value, unit, shown.interval or "no interval", note)

    return (
        factor("KL factor", found.kl, f"× with {row_name(report, cell)}", "KL on its own text over the reference’s"),
        Figure("First different token", median.text, "median", median.note, f"{parted} % of the texts part"),
        Figure(
            "KL on its own text",
            own.value,
            "nats per token",
            own.interval or "no interval",
            f"{other} on the reference’s text",
        ),
        factor(
            "Token factor", found.tokens, "× more different tokens", "different tokens over single-step disagreements"
        ),
    )


def scope(report: TrajectoryReport) -> str:
    """What was generated and scored."""
    asked = report.request is not None and report.request.get("chat") is True
    template = f"{'all' if asked else 'conversations'} in the chat template, " if report.chat_template else ""
    drawn = any(run.random != "none" for run in report.decoders)
    shared = " All models meet the same random numbers at the same step of the same prompt." if drawn else ""
    whose = (
        f" The sentence and the figures are of candidate {LETTERS[0]} with {label(report.decoders[0].name)}."
        if len(report.candidates) > 1
        else ""
    )
    return (
        f"{fmt.count(report.prompts)} prompts of up to {fmt.count(report.prompt_tokens)} tokens, {template}"
        f"each continued for up to {fmt.count(report.most_tokens)} tokens by every model and decoder: "
        f"{fmt.count(report.generated_tokens)} tokens in all. Both models scored every text, over the full vocabulary."
        f"{shared} Intervals are 95 %, clustered by prompt.{whose}"
    )


def _parting(report: TrajectoryReport, first: str) -> list[Block]:
    names = [visible(describe.model(run.model)) for run in report.candidates]
    if len(names) > 1:
        names = [f"{letter}: {name}" for letter, name in zip(LETTERS, names, strict=False)]
    names = [name if len(name) <= _LEGEND else f"{name[: _LEGEND - 1]}…" for name in names]
    curves = [tables.curve(report, cell, names[cell.candidate]) for cell in first_cells(report)]
    chart = survival_chart(f"Prompts with the same text so far, {first}", curves, report.most_tokens)
    return [
        Chart(f"How long the texts stay the same, {first}", chart, "with 95 % interval"),
        tables.parting(report),
        tables.folded(tables.edits(report)),
    ]


def _cuts(report: TrajectoryReport, first: str) -> list[Block]:
    if not report.distances:
        return []
    note = Note(
        f"Both distributions after temperature and cut, on the reference’s texts by {first}. KL is over the positions "
        "at which it is finite. It is infinite if the candidate cuts off a token that the reference keeps."
    )
    return [Section("distances", "Distances after the decoder’s cut", [tables.cuts(report), note], "After the cut")]


def _samples(report: TrajectoryReport) -> list[Block]:
    if not report.samples:
        return []
    note = Note(
        "▸ is the end of the prompt. After it is what both models wrote, then each from the first different token on."
    )
    shown = [block for sample in report.samples for block in _sample(report, sample)]
    return [Section("samples", "Samples", [note, *shown])]


def _sample(report: TrajectoryReport, sample: Sample) -> list[Block]:
    parted = sample.first_divergence
    where = "the same text" if parted is None else f"parts at token {fmt.count(parted)}"
    who = lettered(report, label(sample.decoder), sample.candidate)
    start = Code(
        f"{with_breaks(sample.prompt)} ▸{with_breaks(sample.shared)}",
        visible(f"{who} · {sample.document} · {sample.domain} · {where}"),
    )
    if not (sample.reference or sample.candidate_text):
        return [start]
    sides = (("Reference", sample.reference), ("Candidate", sample.candidate_text))
    return [start, Columns(tuple([Code(with_breaks(text), name)] for name, text in sides))]
