"""The report of an attribution as blocks: the worst part, why, what fits it, and what goes on inside the models."""

from __future__ import annotations

import shlex
from typing import Final

from app.kinds.attribute import parts
from app.kinds.attribute.inside import inside
from app.kinds.attribute.report import AttributeReport
from app.kinds.attribute.words import heading, mean_text
from app.reports.blocks import Block, Next, Note, Section
from app.reports.common import closing, headline, title
from app.reports.reproduce import of_same_pair
from app.reports.untrusted import visible

# Steps of a recipe that a command holds; a longer one is fetched.
_MOST_STEPS: Final = 3


def blocks(report: AttributeReport) -> list[Block]:
    """What the report shows: the damage of the whole candidate, then the parts that cause it."""
    return [
        title(report, what="attribution report", heading=visible(heading(report))),
        headline(report, chart_title="Excess KL of the whole candidate over the noise floor", sentence=_whole(report)),
        Section("blame", visible(heading(report)), _found(report)),
        *parts.parts(report),
        *parts.treatment(report),
        *parts.additivity(report),
        *parts.search(report),
        *([] if report.internals is None else inside(report.internals)),
        *closing(report),
    ]


def _whole(report: AttributeReport) -> str:
    return f"The candidate as a whole loses {mean_text(report.divergence.kl)} nats per token on this text."


def _found(report: AttributeReport) -> list[Block]:
    broken = parts.nowhere_finite_note(report)
    not_swapped = f"{visible(report.not_swapped)}."
    return [
        Note(visible(report.verdict), kind="sentence", brief=True),
        *([Note(broken, "Nowhere finite", "alert", brief=True)] if broken else []),
        *([Note(not_swapped, "No part was swapped", "alert")] if report.not_swapped else []),
        *parts.figures(report),
        *parts.worst(report),
        *_next(report),
        *parts.charts(report),
    ]


def _next(report: AttributeReport) -> list[Block]:
    """The command that measures what the recommended recipe saves."""
    if report.treatment is None or not report.treatment.recipe:
        return []
    recipe = report.treatment.recipe
    if len(recipe) <= _MOST_STEPS:
        command = of_same_pair(report, "compare", recipe=recipe)
    else:
        fetch = visible(shlex.join(["hemostat", "jobs", "fetch", report.job]))
        compare = of_same_pair(report, "compare", recipe=recipe, recipe_file=f"{report.job}/recipe.json")
        command = f"{fetch} && {compare}"
    return [Next("What does the recommended recipe save? It was not measured.", command, brief=True)]
