"""The answer of a sweep in a few sentences, from the numbers of its report."""

from __future__ import annotations

from app.kinds.sweep.fits import answer
from app.kinds.sweep.report import SweepReport
from app.kinds.sweep.task_loss import rule_in_words, rules_of
from app.kinds.sweep.words import ends, heading, setting, where


def sentence(report: SweepReport) -> str:
    """How far damage stays mild, how far the knob is near-lossless if tasks were asked, and where the curve turns."""
    return " ".join([_mild(report), *_collapse(report), *_near_lossless(report), _turn(report)])


def _mild(report: SweepReport) -> str:
    limit = report.largest_mild
    if limit is None or limit.at is None:
        return f"{heading(report)}."
    return f"{heading(report)}; the mean passes the limit at {where(report, limit.at)} {ends(limit)}."


def _collapse(report: SweepReport) -> list[str]:
    broken = next((point for point in report.points if point.nonfinite_positions), None)
    if broken is None:
        return []
    return [f"At {setting(report, broken.value)} some logits are not finite, which is a collapse."]


def _near_lossless(report: SweepReport) -> list[str]:
    field = report.knob.field
    return [rule_in_words(field, side, rule) for side, rule in rules_of(report)]


def _turn(report: SweepReport) -> str:
    if report.threshold is None:
        return f"There is no threshold: {report.no_threshold}."
    return answer(report.threshold, "perplexity")
