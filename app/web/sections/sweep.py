"""What a sweep found: how far the knob may be turned, where the curve turns, and every point."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from app.kinds.sweep.lossless import NearLossless
from app.kinds.sweep.report import Limit, SweepReport, Threshold
from app.models.knobs import told
from app.reports.blocks import Fact, Figure, Table
from app.web import format as fmt
from app.web.sections.classes import definitions
from app.web.sections.sweep_charts import fit_drawn, kl_chart, perplexity_chart
from app.web.sections.sweep_fits import FitView, fit_view
from app.web.sections.sweep_slices import domains, domains_note, token_classes, token_classes_note
from app.web.sections.sweep_tables import effort, limits, limits_note, points, points_note
from app.web.sections.sweep_tasks import answered_note, answered_table, largest_of, lost_in_words, rules_of, stopped_by
from app.web.sections.sweep_words import (
    FORMS,
    UNJUDGED,
    ends,
    heading,
    largest_within,
    limits_of,
    lossless_beyond_mild,
    passed,
    strongest,
    undecided,
    where,
)
from app.web.untrusted import visible

__all__ = ["Sweep", "heading", "strongest", "sweep"]


@dataclass(frozen=True)
class Sweep:
    """Texts, charts and tables of the page."""

    heading: str
    sentence: str
    figures: tuple[Figure, ...]
    kl_chart: Markup | None
    kl_fitted: bool
    perplexity_chart: Markup | None
    points: Table
    points_note: str
    fits: tuple[FitView, ...]
    no_threshold: str
    limits: Table
    limits_note: str
    answered: Table
    answered_note: str
    domains: Table
    domains_note: str
    token_classes: Table
    token_classes_note: str
    definitions: tuple[Fact, ...]
    effort: Table
    effort_note: str


def sweep(report: SweepReport) -> Sweep:
    """The view of a report."""
    known = [threshold for threshold in (report.threshold, report.threshold_kl) if threshold is not None]
    return Sweep(
        heading=heading(report),
        sentence=visible(report.verdict),
        figures=_figures(report),
        kl_chart=kl_chart(report),
        kl_fitted=fit_drawn(report.threshold_kl),
        perplexity_chart=perplexity_chart(report),
        points=points(report),
        points_note=points_note(report),
        fits=tuple(fit_view(threshold, _drawn(report)) for threshold in known),
        no_threshold=visible(report.no_threshold),
        limits=limits(report),
        limits_note=limits_note(report),
        answered=answered_table(report),
        answered_note=answered_note(report),
        domains=domains(report),
        domains_note=domains_note(report),
        token_classes=token_classes(report),
        token_classes_note=token_classes_note(report),
        definitions=definitions(report.token_classes.classes),
        effort=effort(report),
        effort_note=visible(report.choice.note),
    )


def _drawn(report: SweepReport) -> str:
    """What intervals are over: windows of text where documents are too few."""
    found = {point.divergence.kl.clusters for point in report.points if point.divergence is not None}
    # A setting that is not finite everywhere may have windows alone: fits are over the text's documents all the same.
    return "windows" if "windows" in found and "documents" not in found else "documents"


def _figures(report: SweepReport) -> tuple[Figure, ...]:
    limits_ = [
        figure
        for side, mild, lossless in limits_of(report)
        for figure in (
            _limit_figure(_label("Stays mild", side), report, mild, "excess KL, by its upper limit"),
            _limit_figure(
                _label("Near-lossless by perplexity", side), report, lossless, _lossless_rule(report, mild, lossless)
            ),
        )
    ]
    return (
        *limits_,
        *(_rule_figure(_label("Near-lossless by both halves", side), report, rule) for side, rule in rules_of(report)),
        _knee_figure("Perplexity turns at", report.threshold),
        _knee_figure("KL turns at", report.threshold_kl),
    )


def _lossless_rule(report: SweepReport, mild: Limit | None, lossless: Limit | None) -> str:
    beyond = lossless_beyond_mild(report, mild, lossless)
    other = "" if rules_of(report) else "; tasks were not asked"
    return f"ln perplexity rises by less than 0.218{other}{beyond and f'; by KL {beyond}'}"


def _rule_figure(label: str, report: SweepReport, rule: NearLossless) -> Figure:
    last = rule.answered[-1] if rule.answered else None
    shown = ""
    if last is not None and last.degradation is not None:
        shown = f"{lost_in_words(last.degradation)} on tasks at {told(last.value)}"
    note = f"{stopped_by(rule)}; at most 5 % may be lost"
    return Figure(label, largest_of(rule), visible(report.knob.field), visible(shown), note)


def _label(name: str, side: str) -> str:
    """Of all settings, or of those on a side of a neutral value."""
    if not side:
        return f"{name} up to"
    return visible(f"{name}, {side}")


def _limit_figure(label: str, report: SweepReport, limit: Limit | None, note: str) -> Figure:
    crossing = UNJUDGED if limit is None else ""
    if limit is not None and limit.at is not None:
        crossing = f"mean passes at {where(report, limit.at)} {ends(limit)}"
    elif report.knob.order == "unknown" and limit is not None:
        crossing = "; ".join(["each setting judged by itself", *([undecided(limit)] if limit.undecided else [])])
    elif limit is not None:
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
    return f"{FORMS.get(threshold.form, threshold.form)} fits best"
