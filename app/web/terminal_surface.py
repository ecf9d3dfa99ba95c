"""The report of a surface job in a terminal."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.kinds.surface.report import SurfaceReport
from app.web import format as fmt
from app.web.sections.domain_words import unjudged
from app.web.sections.surface_slices import Parts, average_p, domain_parts, kind_parts, kinds_sentence
from app.web.sections.surface_tables import limit_interval, limit_text, p_text, turns
from app.web.sections.surface_words import (
    DEPARTURES,
    MEASURES,
    SHOWN,
    grid,
    heading,
    kind_text,
    label,
    left,
    level,
    name,
    orders_note,
    outcome,
    setting,
    told_of,
)
from app.web.sections.sweep_slices import KIND, OVERLAP
from app.web.terminal_parts import WIDE, Say, head, plain_table, small_print, verdict_lines
from app.web.untrusted import visible

# A row of the grid is as wide as a terminal; more columns are told by the report's JSON and page.
_MOST_COLUMNS = 9


def render_surface(report: SurfaceReport, console: Console, say: Say) -> None:
    """Prints it: do they add up, the grids, the limits, the path, the order, what the chosen setting loses."""
    wide = console.width >= WIDE
    head(report, console, say)
    console.print()
    console.print(Text(heading(report).upper(), style="bold green" if report.chosen.within else "bold red"))
    console.print(Text(say(visible(report.verdict))))
    console.print(Text(say(f"Settings: {grid(report)}. The candidate above is the {told_of(report)}.")))
    console.print(Text(say(outcome(report))))
    console.print()
    for table in (_grid(report, say, of_interactions=False), _grid(report, say, of_interactions=True)):
        if table is not None:
            console.print(table)
    console.print(_interactions(report, say))
    if few := unjudged(report.domains):
        console.print(Text(say(few)))
    elif report.domains:
        console.print(_slices("By domain", "Domain", domain_parts(report), say, wide=wide))
    _kinds(report, console, say, wide=wide)
    console.print(_limits(report, say))
    console.print(_path(report, say, wide=wide))
    console.print(Text(say(orders_note(report))))
    if report.order_effects:
        console.print(_orders(report, say))
    for step in report.chosen.recipe if report.chosen.within else ():
        console.print(Text(say(visible(json.dumps(step, ensure_ascii=False)))))
    verdict_lines(report, console, say, sentence=left(report))
    console.print()
    small_print(report, console, say)


def _grid(report: SurfaceReport, say: Say, *, of_interactions: bool) -> Table | None:
    """A row a setting of the knob with more of them, a column a setting of the other."""
    up = 0 if len(report.knobs[0].values) >= len(report.knobs[1].values) else 1
    across = 1 - up
    places = range(len(report.knobs[across].values))
    if len(places) > _MOST_COLUMNS:
        return None
    losses = {(one.first, one.second): one.loss.mean for one in report.points if one.order == "as given"}
    nats = {(one.first, one.second): one.nats.mean for one in report.interactions if one.order == "as given"}
    found = nats if of_interactions else losses
    title = (
        "Interaction, nats a token" if of_interactions else f"{MEASURES[report.contour.measure]}, level {level(report)}"
    )
    columns = [(f"{name(report, up)} \\ {name(report, across)}", False)]
    columns += [(label(report, across, place), True) for place in places]
    table = plain_table(say(title), [(say(text), number) for text, number in columns])
    for row in range(len(report.knobs[up].values)):
        keys = [(row, place) if up == 0 else (place, row) for place in places]
        cells = [_cell(found.get(key), signed=of_interactions) for key in keys]
        table.add_row(say(label(report, up, row)), *map(say, cells))
    return table


def _cell(value: float | None, *, signed: bool) -> str:
    if value is None:
        return fmt.NONE
    return fmt.signed(value, 2) if signed else fmt.number(value, 3)


def _interactions(report: SurfaceReport, say: Say) -> Table:
    """Those that depart from adding up, largest first; where none does, the largest."""
    rows = sorted(report.interactions, key=lambda row: -abs(row.nats.mean or 0.0))
    # the largest one stands there, too, where it is not shown
    told = [row for row in rows if row.kind in DEPARTURES or row is rows[0]][:8]
    columns = [("Setting", False), ("I, nats", True), ("95 % interval", True), ("p", True), ("", False)]
    table = plain_table("Largest interactions", columns)
    for row in told:
        nats = fmt.estimate(row.nats.mean, row.nats.ci)
        where = setting(report, row.first, row.second, row.order)
        kind = "none shown" if row.kind == "no_departure_shown" else kind_text(row, report.margin)
        table.add_row(Text(say(where)), say(nats.value), say(nats.interval or fmt.NONE), p_text(row.p), kind)
    return table


def _kinds(report: SurfaceReport, console: Console, say: Say, *, wide: bool) -> None:
    """The kinds of token, or why none can be judged."""
    parts = kind_parts(report)
    if line := unjudged(dict(parts), KIND):
        console.print(Text(say(visible(line))))
    elif parts:
        console.print(_slices("By kind of token", "Kind of token", parts, say, wide=wide, kinds=True))
        console.print(Text(say(f"{kinds_sentence(report.token_classes.classes)} {OVERLAP}".strip())))


def _slices(title: str, column: str, parts: Parts, say: Say, *, wide: bool, kinds: bool = False) -> Table:
    """The average interaction of each part of the text, the largest first; of kinds with its p value."""
    columns = [(column, False), ("Average I, nats", True), ("95 % interval", True)]
    columns += [("p", True)] if kinds else []
    columns += [("Documents", True), ("Settings that depart", True)] if wide else []
    table = plain_table(title, columns)
    for told, one in parts:
        average = fmt.estimate(one.average.mean, one.average.ci)
        departing = sum(row.kind in DEPARTURES for row in one.interactions)
        cells = [average.value, average.interval or one.note or fmt.NONE]
        cells += [p_text(average_p(one))] if kinds else []
        if wide:
            cells += [fmt.count(one.documents)]
            cells += [f"{departing} of {len(one.interactions)}" if one.interactions else fmt.NONE]
        table.add_row(Text(say(visible(told))), *map(say, cells))
    return table


def _limits(report: SurfaceReport, say: Say) -> Table:
    columns = [("The other at", False), ("Knob", False), ("Limit", True), ("95 % interval", True)]
    table = plain_table(say(f"How far before {level(report)} is passed"), columns)
    for limit in report.contour.limits:
        which = 0 if limit.knob == "first" else 1
        other = f"{name(report, 1 - which)} {label(report, 1 - which, limit.at)}"
        cells = [other, name(report, which), limit_text(report, limit), limit_interval(report, limit)]
        # As text: "[left out, 256]" would be taken for markup.
        table.add_row(*(Text(say(cell)) for cell in cells))
    return table


def _path(report: SurfaceReport, say: Say, *, wide: bool) -> Table:
    columns = [("Setting", False), ("Size", True), ("Loss", True), ("95 % interval", True)]
    columns += [("Step", False)] if wide else []
    table = plain_table("The cheapest path", columns)
    chosen = report.chosen
    for row, turned in zip(report.path, turns(report), strict=True):
        loss = fmt.estimate(row.loss.mean, row.loss.ci)
        mine = (row.first, row.second, row.order) == (chosen.first, chosen.second, chosen.order)
        where = ("> " if mine else "  ") + setting(report, row.first, row.second, row.order)
        cells = [fmt.size(row.bytes), loss.value, loss.interval or fmt.NONE]
        cells += [turned] if wide else []
        table.add_row(Text(say(where), style="bold" if mine else ""), *map(say, cells))
    return table


def _orders(report: SurfaceReport, say: Say) -> Table:
    """ln PPL of every setting, and KL of those where it shows a difference."""
    columns = [("Setting", False), ("In", False), ("Nats a token", True), ("95 % interval", True), ("p", True)]
    table = plain_table("Exchanged order minus order as given", columns)
    for row in report.order_effects:
        where = setting(report, row.first, row.second)
        differs = row.p_kl is not None and row.p_kl < SHOWN
        measures = [("ln PPL", row.log_perplexity, row.p), *([("KL", row.kl, row.p_kl)] if differs else [])]
        for measure, mean, p in measures:
            nats = fmt.estimate(mean.mean, mean.ci)
            table.add_row(Text(say(where)), measure, say(nats.value), say(nats.interval or fmt.NONE), p_text(p))
    return table
