"""The report of a comparison as blocks."""

from __future__ import annotations

from app.contracts.report import SEVERITIES
from app.kinds.compare.numbers import distribution, figures, kernel_term, metrics
from app.kinds.compare.report import CompareReport
from app.kinds.compare.slices import token_classes, where, worst
from app.kinds.compare.tool_calls import tool_calls
from app.kinds.compare.worst_tokens import worst_tokens
from app.reports.blocks import Block, Section
from app.reports.common import closing, headline, title, which_layers


def blocks(report: CompareReport) -> list[Block]:
    """What the report shows, the verdict first."""
    return [
        title(report, what="comparison report", heading=report.severity.capitalize()),
        headline(report),
        Section("numbers", "Key numbers", [*figures(report), *worst(report), *_next(report), *metrics(report)]),
        Section("distribution", "Distribution of per-token KL", distribution(report), "Distribution"),
        Section("where", "Where the loss sits", where(report), "Where"),
        *tool_calls(report),
        *token_classes(report),
        Section("tokens", "Worst tokens", worst_tokens(report)),
        *kernel_term(report),
        *closing(report),
    ]


def _next(report: CompareReport) -> list[Block]:
    """From moderate damage on: what causes it."""
    return [which_layers(report)] if SEVERITIES.index(report.severity) >= SEVERITIES.index("moderate") else []
