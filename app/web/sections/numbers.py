"""Key numbers with their intervals, and the distribution of per-token KL."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from app.contracts.report import Distribution, Mean
from app.kinds.compare.report import CompareReport
from app.web import describe
from app.web import format as fmt
from app.web.charts import Mark, histogram_chart
from app.web.tables import Cell, Column, Table
from app.web.untrusted import visible

ORDER = (("median", "Median"), ("p90", "p90"), ("p95", "p95"), ("p99", "p99"), ("p999", "p99.9"), ("max", "Max"))


@dataclass(frozen=True)
class Figure:
    """A headline number."""

    label: str
    value: str
    unit: str
    interval: str
    note: str


@dataclass(frozen=True)
class Numbers:
    """What was measured over all scored tokens."""

    figures: tuple[Figure, ...]
    compared: str
    divergences: Table
    prediction: Table
    ranking: Table
    histogram: Markup
    histogram_table: Table
    floor: str
    kernel: Table | None


def numbers(report: CompareReport) -> Numbers:
    """The numbers of a report."""
    return Numbers(
        figures=_figures(report),
        compared=_compared(report),
        divergences=_divergences(report),
        prediction=_prediction(report),
        ranking=_ranking(report),
        histogram=histogram_chart(report.histogram, _marks(report)),
        histogram_table=_histogram_table(report),
        floor=_floor(report),
        kernel=_kernel(report),
    )


def _figures(report: CompareReport) -> tuple[Figure, ...]:
    kl, perplexity = report.divergence.kl, report.perplexity
    return (
        _figure("KL divergence", kl, "nats a token", "mean over all scored tokens"),
        _figure(
            "Perplexity ratio",
            perplexity.ratio,
            "candidate / reference",
            f"from {fmt.number(perplexity.reference, 4)} to {fmt.number(perplexity.candidate, 4)}",
        ),
        _figure(
            "Same first choice", report.top1_agreement, "% of tokens", "both name the same next token", percent=True
        ),
        Figure(
            "Worst 1 % of tokens",
            fmt.number(kl.p99),
            "nats or more",
            "",
            f"99th percentile of KL; median {fmt.number(kl.median)}, largest {fmt.number(kl.max)}",
        ),
    )


def _figure(label: str, mean: Mean, unit: str, note: str, *, percent: bool = False) -> Figure:
    text = fmt.estimate(mean.mean, mean.ci, percent=percent)
    return Figure(label, text.value, unit, text.interval or "no interval", note)


def _compared(report: CompareReport) -> str:
    origin = report.provenance
    return (
        f"p is the next-token distribution of the reference ({visible(describe.model(origin.reference))}), "
        f"q that of the candidate ({visible(describe.model(origin.candidate))}), both after the same tokens and over "
        f"the full vocabulary of {fmt.count(origin.protocol.vocabulary)} tokens. Brackets hold intervals: "
        f"{visible(origin.intervals).rstrip('.')}.{_clusters(report)}"
    )


def _clusters(report: CompareReport) -> str:
    by = report.divergence.kl.clusters
    return f" Here they are clustered by {by}{': the documents are too few' if by == 'windows' else ''}." if by else ""


def _divergences(report: CompareReport) -> Table:
    blocks = (
        ("KL(p‖q)", "nats; what the candidate lost", report.divergence.kl),
        ("KL(q‖p)", "nats; what it made up", report.divergence.reverse_kl),
        ("JS", "nats; Jensen–Shannon, at most 0.693", report.divergence.js),
        ("TV", "a probability; total variation", report.divergence.tv),
    )
    return Table(
        caption="Divergence a token",
        columns=(
            Column("Quantity", "name"),
            Column("Mean"),
            Column("95 % interval"),
            *(Column(label) for _, label in ORDER),
        ),
        rows=tuple(_distribution_row(name, note, block) for name, note, block in blocks),
    )


def _distribution_row(name: str, note: str, block: Distribution) -> tuple[Cell, ...]:
    mean = fmt.estimate(block.mean, block.ci)
    return (
        Cell(name, note),
        Cell(mean.value, strong=True),
        Cell(mean.interval or fmt.NONE),
        *(Cell(fmt.number(getattr(block, key))) for key, _ in ORDER),
    )


_MEANS = (Column("Quantity", "name"), Column("Mean"), Column("95 % interval"))


def _prediction(report: CompareReport) -> Table:
    perplexity, entropy = report.perplexity, report.entropy
    return Table(
        caption="Prediction",
        columns=_MEANS,
        rows=(
            _plain_row("Perplexity of p", "reference, on the observed tokens", fmt.number(perplexity.reference, 5)),
            _plain_row("Perplexity of q", "candidate", fmt.number(perplexity.candidate, 5)),
            _mean_row("Perplexity ratio", "candidate / reference, paired; 1 is no change", perplexity.ratio),
            _mean_row("Entropy of p", "nats; reference", entropy.reference),
            _mean_row("Entropy of q", "nats; candidate", entropy.candidate),
        ),
    )


def _ranking(report: CompareReport) -> Table:
    agreement = report.agreement
    return Table(
        caption="Ranking",
        columns=_MEANS,
        rows=(
            _mean_row("Top-1 agreement", "%; same most likely token", agreement.top1, percent=True),
            _mean_row("Top-5 overlap", "%; shared among the five likeliest", agreement.top5_overlap, percent=True),
            _mean_row("Top-10 overlap", "%; shared among the ten likeliest", agreement.top10_overlap, percent=True),
            _mean_row("Expected rank", "in q, of p’s most likely token; 1 is best", agreement.expected_rank),
        ),
    )


def _plain_row(name: str, note: str, value: str) -> tuple[Cell, ...]:
    return (Cell(name, note), Cell(value, strong=True), Cell(fmt.NONE, "see the ratio"))


def _mean_row(name: str, note: str, mean: Mean, *, percent: bool = False) -> tuple[Cell, ...]:
    text = fmt.estimate(mean.mean, mean.ci, percent=percent)
    return (Cell(name, note), Cell(text.value, strong=True), Cell(text.interval or fmt.NONE))


def _marks(report: CompareReport) -> tuple[Mark, ...]:
    kl, floor = report.divergence.kl, report.noise_floor.kl
    floor_label = "noise floor exactly 0" if floor.mean == 0 else f"noise floor {fmt.number(floor.mean)}"
    marks = (
        (floor.mean, floor_label, "floor"),
        (kl.median, f"median {fmt.number(kl.median)}", "median"),
        (kl.mean, f"mean {fmt.number(kl.mean)}", "mean"),
        (kl.p99, f"99th percentile {fmt.number(kl.p99)}", "tail"),
    )
    return tuple(Mark(value, label, kind) for value, label, kind in marks if value is not None)


def _histogram_table(report: CompareReport) -> Table:
    histogram = report.histogram
    bins = [("under the first bin", histogram.below)]
    bins += [
        (f"{fmt.number(low)} to {fmt.number(high)}", bin_count)
        for (low, high), bin_count in zip(pairwise(histogram.edges), histogram.counts, strict=False)
    ]
    bins.append(("over the last bin", histogram.above))
    total = max(1, sum(bin_count for _, bin_count in bins))
    return Table(
        caption="Positions by KL",
        columns=(Column("KL, nats", "name"), Column("Positions"), Column("Share, %")),
        rows=tuple(
            (Cell(name), Cell(fmt.count(bin_count)), Cell(fmt.percent(bin_count / total)))
            for name, bin_count in bins
            if bin_count
        ),
    )


def _floor(report: CompareReport) -> str:
    floor = report.noise_floor
    how = (
        f"the reference scored against itself in batches of {floor.batch_shapes[0]} and of {floor.batch_shapes[1]} "
        f"windows, {fmt.count(floor.tokens)} tokens"
    )
    if floor.kl.max == 0 and floor.kl.mean == 0:
        return f"Exactly 0 ({how}): on this machine the engine repeats itself to the last bit."
    return f"{fmt.number(floor.kl.mean)} nats a token on average, {fmt.number(floor.kl.max)} at most ({how})."


def _kernel(report: CompareReport) -> Table | None:
    kernel = report.kernel_term
    if kernel is None:
        return None
    mean = fmt.estimate(kernel.kl.mean, kernel.kl.ci)
    return Table(
        caption=f"Kernel term of {visible(kernel.scheme)}, over {fmt.count(kernel.tokens)} tokens",
        columns=(
            Column("Quantity", "name"),
            Column("Mean"),
            Column("95 % interval"),
            *(Column(label) for _, label in ORDER),
        ),
        rows=(
            (
                Cell("KL(dequantized‖packed)", "nats"),
                Cell(mean.value, strong=True),
                Cell(mean.interval or fmt.NONE),
                *(Cell(fmt.number(getattr(kernel.kl, key))) for key, _ in ORDER),
            ),
        ),
    )
