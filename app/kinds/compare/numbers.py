"""Key numbers with their intervals, and the distribution of per-token KL."""

from __future__ import annotations

from app.contracts.distances import DISTANCES, Distance
from app.contracts.report import Distribution, Mean
from app.kinds.compare.report import CompareReport
from app.reports import describe
from app.reports import format as fmt
from app.reports.blocks import Block, Cell, Chart, Column, Columns, Figure, Figures, Next, Note, Section, Table
from app.reports.charts.marks import Mark, histogram_chart
from app.reports.untrusted import visible

_QUANTILES = (("median", "Median"), ("p90", "p90"), ("p95", "p95"), ("p99", "p99"), ("p999", "p99.9"), ("max", "Max"))
_MEAN = (Column("Quantity", "name"), Column("Mean"), Column("95 % interval"))
_DISTRIBUTION = (
    *_MEAN,
    *(Column(label, priority=0 if label in {"Median", "p99"} else 2) for _, label in _QUANTILES),
)
Row = tuple[Cell, ...]


def figures(report: CompareReport) -> list[Block]:
    """The four numbers to read first."""
    return [Figures(_figures(report), brief=True)]


def metrics(report: CompareReport) -> list[Block]:
    """What is compared, and a table for each group of metrics."""
    return [
        Note(_compared(report)),
        _divergences(report),
        Columns(([_prediction(report)], [_ranking(report)])),
        Next("Is another candidate better?", f"hemostat diff {visible(report.job)} OTHER"),
    ]


def distribution(report: CompareReport) -> list[Block]:
    """How the KL of single tokens is distributed, beside the noise floor."""
    histogram = Chart(
        "Share of positions by KL(p‖q)", histogram_chart(report.histogram, _marks(report)), "nats, logarithmic"
    )
    return [
        histogram,
        Note(_floor(report), "Noise floor"),
    ]


def kernel_term(report: CompareReport) -> list[Block]:
    """What the candidate's own kernels add; nothing if it has none."""
    kernel = report.kernel_term
    if kernel is None:
        return []
    caption = f"Kernel term of {visible(kernel.scheme)}, over {fmt.count(kernel.tokens)} tokens"
    table = Table(caption, _DISTRIBUTION, (_distribution_row("KL(dequantized‖packed)", "nats", kernel.kl),))
    what = (
        "The candidate runs on kernels of its own. This is its KL from the same weights, dequantized to the "
        "reference’s dtype and run on the reference’s kernels: other rounding, and activation quantization if the "
        "scheme has it. None of it comes from the weights."
    )
    return [Section("kernel", "Kernel term", (Note(what, kind="plain"), table))]


def _figures(report: CompareReport) -> tuple[Figure, ...]:
    kl, perplexity = report.divergence.kl, report.perplexity
    from_to = f"from {fmt.number(perplexity.reference, 4)} to {fmt.number(perplexity.candidate, 4)}"
    tail = f"99th percentile of KL; median {fmt.number(kl.median)}, largest {fmt.number(kl.max)}"
    same = "both name the same next token"
    floor = ", noise floor included" if report.noise_floor.kl.mean else ""
    return (
        _figure("KL divergence", kl, f"nats per token{floor}", "the loss above plus the noise floor"),
        _figure("Perplexity ratio", perplexity.ratio, "candidate / reference", from_to),
        _figure("Same first choice", report.top1_agreement, "% of tokens", same, percent=True),
        Figure("Worst 1 % of tokens", fmt.number(kl.p99), "nats or more", "", tail),
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
    rows = tuple(_distribution_row(of.symbol, _note(of), report.divergence.of(of)) for of in DISTANCES)
    return Table(caption="Divergence per token", columns=_DISTRIBUTION, rows=rows)


def _note(of: Distance) -> str:
    return f"{'a probability' if of.unit == 'probability' else of.unit}; {of.says}"


def _distribution_row(name: str, note: str, block: Distribution) -> Row:
    return (*_mean_row(name, note, block), *(Cell(fmt.number(getattr(block, key))) for key, _ in _QUANTILES))


def _prediction(report: CompareReport) -> Table:
    perplexity, entropy = report.perplexity, report.entropy
    return Table(
        caption="Prediction",
        columns=_MEAN,
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
        columns=_MEAN,
        rows=(
            _mean_row("Top-1 agreement", "%; same most likely token", agreement.top1, percent=True),
            _mean_row("Top-5 overlap", "%; shared among the five likeliest", agreement.top5_overlap, percent=True),
            _mean_row("Top-10 overlap", "%; shared among the ten likeliest", agreement.top10_overlap, percent=True),
            _mean_row("Expected rank", "in q, of p’s most likely token; 1 is best", agreement.expected_rank),
        ),
    )


def _plain_row(name: str, note: str, value: str) -> Row:
    return (Cell(name, note), Cell(value, strong=True), Cell(fmt.NONE, "see the ratio"))


def _mean_row(name: str, note: str, mean: Mean, *, percent: bool = False) -> Row:
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


def _floor(report: CompareReport) -> str:
    floor = report.noise_floor
    how = (
        f"the reference scored against itself in batches of {floor.batch_shapes[0]} and of {floor.batch_shapes[1]} "
        f"windows, {fmt.count(floor.tokens)} tokens"
    )
    if floor.kl.max == 0 and floor.kl.mean == 0:
        return f"Exactly 0 ({how}): on this machine the engine repeats itself to the last bit."
    return f"{fmt.number(floor.kl.mean)} nats per token on average, {fmt.number(floor.kl.max)} at most ({how})."
