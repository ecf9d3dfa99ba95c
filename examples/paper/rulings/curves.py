"""Rules on whole curves: where the knee is, and whether two texts tell the same."""

from __future__ import annotations

from typing import Final, Literal

from app.kinds.sweep.report import SweepReport
from examples.paper.finding import Figure, Finding, NoNumberError, decided
from examples.paper.rulings.charts import sweep_curve
from examples.paper.rulings.reports import Reports, beyond, near_lossless, times

RANGE: Final = (0.55, 0.65)
SPARSITY: Final = "share of zeros"
TWO_TEXTS: Final = (0.2, 0.3, 0.35, 0.4, 0.45, 0.5)


def knee(reports: Reports) -> Finding:
    """The intervals of both methods' knees against the published range."""
    places, figures, said, charts = [], [], [], []
    for job, name in (("wanda-sparsity", "Wanda"), ("sparsegpt-sparsity", "SparseGPT")):
        report = reports.of(job, SweepReport)
        place, figure, told = _place(report, name)
        places.append(place)
        figures += [figure, *_risen(report, name)]
        said.append(told)
        charts.append(
            sweep_curve(f"knee-{name.lower()}", f"{name}: perplexity over sparsity", report, SPARSITY, knee=True)
        )
    outcome = decided(confirmed=all(place == "there" for place in places), refuted="elsewhere" in places)
    return Finding(outcome, " ".join(said), tuple(figures), tuple(charts))


def _place(report: SweepReport, name: str) -> tuple[Literal["there", "elsewhere", "open"], Figure, str]:
    found = report.threshold
    if found is None:
        raise NoNumberError(f"{name}: {report.no_threshold}")
    figure = Figure(f"knee of {name}", found.s0, found.ci, SPARSITY, f"{RANGE[0]:g} to {RANGE[1]:g}, published")
    low, high = RANGE
    if found.answer == "no transition in range":
        return "elsewhere", figure, f"{name}: no transition from {report.points[0].value} to {report.points[-1].value}."
    if found.answer == "not identifiable":
        return "open", figure, f"{name}: the knee, at {figure}, is not identifiable: {'; '.join(found.reasons)}."
    told = f"{name}: the knee is at {figure}."
    if low <= figure.low and figure.high <= high:
        return "there", figure, told
    return ("elsewhere" if figure.high < low or figure.low > high else "open"), figure, told


def _risen(report: SweepReport, name: str) -> list[Figure]:
    """Beside the knee, where the curve bends: where it has risen by the published limit, whatever its form."""
    found = report.near_lossless
    if found is None or found.at is None or found.ci is None or found.ci[0] is None or found.ci[1] is None:
        return []
    against = f"ln perplexity {found.limit:.3f} above the original's"
    return [Figure(f"near-lossless up to, {name}", found.at, (found.ci[0], found.ci[1]), SPARSITY, against)]


def one_text_hides(reports: Reports) -> Finding:
    """The same settings on two corpora, each against the limit of near-lossless."""
    figures: list[Figure] = []
    hides: list[str] = []
    agree = 0
    for sparsity in TWO_TEXTS:
        known = reports.ratio_at("wanda-sparsity", sparsity, f"{sparsity:g}, evaluation text")
        other = reports.ratio_at("wanda-sparsity-classes", sparsity, f"{sparsity:g}, kinds of tokens")
        figures += [known, other]
        if (near_lossless(known) and beyond(other)) or (beyond(known) and near_lossless(other)):
            hides.append(f"at {sparsity:g} {times(known)} on the evaluation text and {times(other)} on the other")
        elif (near_lossless(known) and near_lossless(other)) or (beyond(known) and beyond(other)):
            agree += 1
    outcome = decided(confirmed=bool(hides), refuted=agree == len(TWO_TEXTS))
    told = "; ".join(hides) if hides else "no setting hides"
    charts = (
        sweep_curve(
            "texts-evaluation",
            "Wanda on the evaluation text",
            reports.of("wanda-sparsity", SweepReport),
            SPARSITY,
        ),
        sweep_curve(
            "texts-classes",
            "Wanda on the text of kinds of tokens",
            reports.of("wanda-sparsity-classes", SweepReport),
            SPARSITY,
        ),
    )
    sentence = f"Of {len(TWO_TEXTS)} settings {len(hides)} hide and {agree} agree: {told}."
    return Finding(outcome, sentence, tuple(figures), charts)
