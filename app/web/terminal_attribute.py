"""The report of an attribute job in a terminal."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.kinds.attribute.report import AttributeReport
from app.web import format as fmt
from app.web.sections.attribute_classes import class_sentence
from app.web.sections.attribute_words import (
    additivity_note,
    cause_text,
    heading,
    mean_text,
    nowhere_finite_note,
    search_note,
    share_text,
    sites_note,
    treated_sites,
    whole_damage,
)
from app.web.sections.internals import inside_lines
from app.web.terminal_parts import WIDE, Say, capitals, head, plain_table, small_print, verdict_lines
from app.web.untrusted import visible

SHOWN = 12


def render_attribute(report: AttributeReport, console: Console, say: Say) -> None:
    """Prints it: the worst parts, why, what fits, whether they add up, and what the search cost."""
    wide = console.width >= WIDE
    head(report, console, say)
    verdict_lines(report, console, say)
    console.print(Text(say(whole_damage(report))))
    console.print()
    names = [one.name for one in report.nowhere_finite] + [one.name for one in report.sites]
    console.print(Text(say(capitals(visible(heading(report)), map(visible, names))), style="bold"))
    if report.nowhere_finite:
        console.print(Text(say(visible(f"Nowhere finite: {nowhere_finite_note(report)}")), style="bold"))
    if report.sites:
        console.print(_sites(report, say, wide=wide))
    explained = report.explained
    if explained is not None and explained.share.mean is not None:
        count = len(explained.sites)
        parts = f"The first {count} parts together" if count > 1 else "The first part"
        restored = ""
        if explained.restored_share is not None:
            restored = f"; restored together they give {mean_text(explained.restored_share, percent=True)} % back"
        share = mean_text(explained.share, percent=True)
        console.print(Text(say(f"{parts} cost {share} % of the damage{restored}.")))
    notes = (class_sentence(report), additivity_note(report), sites_note(report), search_note(report))
    for note in filter(None, notes):
        console.print(Text(say(note)))
    if treated_sites(report):
        console.print()
        console.print(_treatments(report, say))
    if report.treatment is not None and report.treatment.recipe:
        of = "the first" if report.not_swapped else "all of them together"
        console.print(Text(f"The recipe for {of} (not measured yet):", style="bold"))
        for step in report.treatment.recipe:
            console.print(Text(say(visible(json.dumps(step, ensure_ascii=False)))))
    if report.internals is not None and (told := inside_lines(report.internals)):
        console.print()
        console.print(Text("Inside the models", style="bold"))
        for line in told:
            console.print(Text(say(visible(line))))
    small_print(report, console, say)


def _sites(report: AttributeReport, say: Say, *, wide: bool) -> Table:
    columns = [("Part", False), ("Nats", True), ("95 % interval", True), ("Share, %", True)]
    columns += [("Control", True), ("x noise", True)] if wide else []
    columns += [("Cause", False)]
    table = plain_table("Parts by what they cost alone in the reference", columns)
    table.columns[0].no_wrap = wide
    for site in report.sites[:SHOWN]:
        nats, share = fmt.estimate(site.nats, site.ci), share_text(site)
        cells = [nats.value, nats.interval or fmt.NONE, share.value]
        if wide:
            ratio = fmt.estimate(site.isotropic_ratio, site.isotropic_ci)
            control = fmt.NONE if site.control is None else fmt.number(site.control)
            cells += [control, ratio.value]
        table.add_row(Text(say(visible(site.name))), *map(say, cells), say(cause_text(site)))
    return table


def _treatments(report: AttributeReport, say: Say) -> Table:
    table = plain_table("What fits", [("Part", False), ("Cause", False), ("Treatment", False)])
    for site in treated_sites(report):
        if site.treatment is not None:
            why = site.treatment.why.removeprefix(f"{site.name}: ")
            table.add_row(Text(say(visible(site.name))), say(cause_text(site)), Text(say(visible(why))))
    return table
