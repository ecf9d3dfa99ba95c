"""The report of a sweep as blocks: how far the knob may be turned, where the curve turns, and every point."""

from __future__ import annotations

from dataclasses import replace

from app.kinds.sweep.charts import fit_drawn, kl_chart, perplexity_chart
from app.kinds.sweep.fits import answer, fit_view
from app.kinds.sweep.report import Limit, SweepReport, Threshold
from app.kinds.sweep.tables import effort, limits, limits_note, points, points_note
from app.kinds.sweep.words import (
    NO_ORDER,
    UNJUDGED,
    ends,
    form_name,
    heading,
    largest_within,
    one_by_one,
    passed,
    setting,
    strongest,
    where,
)
from app.reports import format as fmt
from app.reports.blocks import Block, Chart, Figure, Figures, Items, Note, Section, filled
from app.reports.common import closing, headline, title
from app.reports.untrusted import visible

_MOST_ROWS = 12  # that the short output of a terminal has room for


def blocks(report: SweepReport) -> list[Block]:
    """What the report shows, how far one may go first."""
    table = points(report)
    return [
        title(report, heading=heading(report)),
        Section("found", heading(report), _found(report)),
        *_curves(report),
        Section("points", "Points", (replace(table, brief=len(table.rows) <= _MOST_ROWS), Note(points_note(report)))),
        Section("limits-of-use", "How far one may go", [*filled(limits(report)), Note(limits_note(report))], "How far"),
        Section("threshold", "Knee", thresholds(report)),
        Section("effort", "Effort", (Note(f"{_choice(report)} {effort(report)}"),)),
        headline(
            report,
            chart_title="Excess KL of the strongest setting over the noise floor",
            sentence=strongest(report),
            nav="Strongest setting",
        ),
        *closing(report),
    ]


def _found(report: SweepReport) -> list[Block]:
    return [Note(visible(report.verdict), kind="sentence", brief=True), Figures(figures(report), brief=True)]


def _curves(report: SweepReport) -> list[Block]:
    found: list[Block] = []
    if kl := kl_chart(report):
        fitted = ", the fitted form" if fit_drawn(report.threshold_kl) else ""
        caption = f"KL(p‖q) with its 95 % interval{fitted}, and where each class begins"
        chart = Chart(caption, kl, "nats per token, logarithmic")
        found.append(Section("kl", "KL against the setting", (chart,), "KL"))
    if perplexity := perplexity_chart(report):
        caption = "Perplexity of q; its interval is that of the paired ratio to the unmodified model"
        chart = Chart(caption, perplexity, "logarithmic")
        found.append(Section("perplexity", "Perplexity against the setting", (chart,), "Perplexity"))
    return found


def thresholds(report: SweepReport) -> list[Block]:
    """Both fits, or why there is none."""
    found: list[Block] = []
    for threshold in (report.threshold, report.threshold_kl):
        if threshold is not None:
            fit = fit_view(threshold)
            found += [Note(fit.answer, f"On the {fit.name}", "plain"), *([Items(fit.notes)] if fit.notes else [])]
            found += [fit.numbers, fit.forms]
    if report.no_threshold:
        which = "Of the other quantity there is" if found else "There is"
        found.append(Note(f"{which} no knee: {visible(report.no_threshold)}.", kind="plain"))
    return found


def _choice(report: SweepReport) -> str:
    """How the measured settings were chosen."""
    asked, measured = len(report.knob.values), len(report.points)
    if measured == asked:
        return "Every value was measured."
    how = "the place where damage stops being mild was still open"
    if report.knob.order == "unknown":
        how = "the gap between measured values was widest"
    elif report.knob.share is not None:
        how = "the knee's interval was expected to narrow most"
    return f"{measured} of {asked} values were measured: a few evenly spread ones first, then each where {how}."


def figures(report: SweepReport) -> tuple[Figure, ...]:
    """Where mild and near-lossless end, and where the curves turn."""
    lossless = "ln perplexity rises by less than 0.218; the KL may be severe"
    return (
        _limit_figure("Stays mild up to", report, report.largest_mild, "excess KL, by its upper limit"),
        _limit_figure("Near-lossless by perplexity up to", report, report.near_lossless, lossless),
        _knee_figure("Perplexity turns at", report.threshold),
        _knee_figure("KL turns at", report.threshold_kl),
    )


def _limit_figure(label: str, report: SweepReport, limit: Limit | None, note: str) -> Figure:
    if limit is None:
        crossing = NO_ORDER if report.knob.order == "unknown" else UNJUDGED
    elif limit.at is not None:
        crossing = f"mean passes at {where(report, limit.at)} {ends(limit)}"
    else:
        crossing = " ".join(["limit passed:", *passed(report, limit)]).strip()
    return Figure(label, largest_within(limit), visible(report.knob.field), crossing, note)


def _knee_figure(label: str, threshold: Threshold | None) -> Figure:
    if threshold is None:
        return Figure(label, fmt.NONE, "s", "", "not fitted")
    if threshold.answer == "no transition in range":
        return Figure(label, fmt.NONE, "s, the share removed", "", threshold.answer)
    knee = fmt.estimate(threshold.s0, threshold.ci)
    known = threshold.answer == "transition"
    return Figure(
        label,
        knee.value if known else fmt.NONE,
        "s, the share removed",
        knee.interval or "" if known else f"not identifiable; best fit {knee}",
        _best(threshold),
    )


def _best(threshold: Threshold) -> str:
    """Which form describes the points best, where each could be judged."""
    if threshold.unjudged:
        return "no choice of form: too few points"
    return f"{form_name(threshold.form)} fits best"


def verdict_of(report: SweepReport) -> str:
    """How far damage stays mild, and where the curve turns."""
    return " ".join([_mild(report), *_collapse(report), _turn(report)])


def _mild(report: SweepReport) -> str:
    limit = report.largest_mild
    if limit is None or limit.at is None or one_by_one(report):
        return f"{heading(report)}."
    return f"{heading(report)}; the mean passes the limit at {where(report, limit.at)} {ends(limit)}."


def _collapse(report: SweepReport) -> list[str]:
    broken = next((point for point in report.points if point.nonfinite_positions), None)
    if broken is None:
        return []
    return [f"At {setting(report, broken.value)} some logits are not finite, which is a collapse."]


def _turn(report: SweepReport) -> str:
    if report.threshold is None:
        return f"There is no knee: {report.no_threshold}."
    return answer(report.threshold, "perplexity")
