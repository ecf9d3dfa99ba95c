"""Parts of the text by which a surface is reported: its domains and kinds of token, where damages add up and what each
loses at every setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.kinds.surface.report import SurfaceReport, SurfaceSlice, SurfaceTokenClass
from app.kinds.surface.words import DEPARTURES, SHOWN, kind_text, setting, told_of
from app.reports import format as fmt
from app.reports.blocks import Cell, Column, Table
from app.reports.charts.marks import Guide, axis, interval_strip
from app.reports.classes import NONE as NO_CLASS
from app.reports.classes import listed, lowered, p_value
from app.reports.domain_words import KIND, OVERLAP, unjudged
from app.reports.scales import LinearScale
from app.reports.untrusted import visible

Parts = Sequence[tuple[str, SurfaceSlice]]


def domain_parts(report: SurfaceReport) -> Parts:
    """The domains, the one of the largest average first."""
    return _by_average(report.domains)


def kind_parts(report: SurfaceReport) -> Parts:
    """The classes of tokens by their titles, likewise, and what is in none of them last."""
    found = report.token_classes
    rows = _by_average({one.title: one for one in found.classes})
    return [*rows, *([(NO_CLASS, found.none)] if found.none is not None else [])]


def _by_average(parts: Mapping[str, SurfaceSlice]) -> list[tuple[str, SurfaceSlice]]:
    return sorted(parts.items(), key=lambda item: -abs(item[1].average.mean or 0.0))


def domains(report: SurfaceReport) -> Table:
    """Average and largest interaction of each domain; no row where none can be judged alone."""
    parts = [] if unjudged(report.domains) else domain_parts(report)
    return _table(report, "Interactions by domain", "Domain", parts)


def token_classes(report: SurfaceReport) -> Table:
    """The same of each kind of token, with the p value of the average."""
    parts = kind_parts(report)
    shown = [] if unjudged(dict(parts), KIND) else parts
    return _table(report, "Interactions by kind of the predicted token", "Kind", shown, kinds=True)


def domains_by_setting(report: SurfaceReport) -> Table:
    """What each domain loses at every setting; no row where the report does not have it, or none can be judged."""
    parts = [] if unjudged(report.domains) else domain_parts(report)
    return _by_setting(report, "KL of each domain, nats per token", parts)


def kinds_by_setting(report: SurfaceReport) -> Table:
    """The same of each kind of token."""
    parts = kind_parts(report)
    return _by_setting(report, "KL of each kind, nats per token", [] if unjudged(dict(parts), KIND) else parts)


def domains_note(report: SurfaceReport) -> str:
    """What the domains are; where none can be judged that alone, empty where there is none."""
    if not report.domains:
        return ""
    return unjudged(report.domains) or f"{_averages('domain')}{_few(domain_parts(report), 'domain')}"


def token_classes_note(report: SurfaceReport) -> str:
    """In which kinds damages do not add up, how that is judged, and which are not in the text; where none can be judged
    alone, that alone; empty where there is nothing to say."""
    found, parts = report.token_classes, kind_parts(report)
    if not parts:
        return ""
    absent = f" Not in this text: {', '.join(map(visible, found.absent))}." if found.absent else ""
    if line := unjudged(dict(parts), KIND):
        return f"{line}{absent}"
    sentence = kinds_sentence(found.classes)
    return f"{f'{sentence} ' if sentence else ''}{_averages('kind')} {OVERLAP}{_few(parts, KIND)}{absent}"


def kinds_sentence(found: Sequence[SurfaceTokenClass]) -> str:
    """In which kinds damages compound or overlap on average, beyond chance; empty where no kind has a p value."""
    tested = [one for one in found if one.average_p is not None]
    if not tested:
        return ""
    sure = [one for one in tested if one.average_p is not None and one.average_p < SHOWN]
    parts = []
    for verb, sign in (("compound", 1), ("overlap", -1)):
        names = [visible(lowered(one.title)) for one in sure if (one.average.mean or 0.0) * sign > 0]
        parts += [f"{verb} in {listed(names)}"] if names else []
    judged = f"{fmt.counted(len(tested), 'kind')} that {'has' if len(tested) == 1 else 'have'} an interval"
    by = "" if len(tested) == 1 else f", by p values corrected over the {judged} (Holm)"
    if not parts:
        return f"On average over the settings no kind of token is shown to depart from adding up{by}."
    return f"On average over the settings the damages {', and '.join(parts)}{by}."


def _averages(part: str) -> str:
    return (
        "The average is the mean of I over every setting of both knobs in the order as given; the largest interaction "
        f"is corrected over the settings of its {part}, not over {part}s."
    )


def _few(parts: Parts, what: str) -> str:
    if not any(one.note for _, one in parts):
        return ""
    return f" A {what} in fewer than six documents has no interval and no interactions of single settings."


def _table(report: SurfaceReport, caption: str, column: str, parts: Parts, *, kinds: bool = False) -> Table:
    spans = [bound for _, one in parts for bound in (one.average.mean, *(one.average.ci or ())) if bound is not None]
    wide = max([abs(value) for value in spans] or [1.0]) or 1.0
    scale = LinearScale(-1.08 * wide, 1.08 * wide)
    rows = []
    for name, one in parts:
        average, kl = fmt.estimate(one.average.mean, one.average.ci), fmt.estimate(one.kl.mean, one.kl.ci)
        # What a part of few documents lacks is reported once, below the table.
        without = "" if one.note else "no interval"
        most = max(one.interactions, key=lambda row: abs(row.nats.mean or 0.0), default=None)
        departing = sum(row.kind in DEPARTURES for row in one.interactions)
        p = average_p(one)
        told = ", ".join([average.interval or without, *([] if p is None else [p_value(p)])])
        size = [fmt.counted(one.documents, "document"), *([fmt.counted(one.tokens, "token")] if kinds else [])]
        rows.append(
            (
                Cell(visible(name), ", ".join(size)),
                Cell(kl.value, kl.interval or without),
                Cell(average.value, told, strong=p is not None and p < SHOWN),
                Cell(
                    chart=interval_strip(
                        f"{visible(name)}: {average} nats",
                        one.average.mean,
                        one.average.ci,
                        scale,
                        [Guide(0.0, "base")],
                    )
                ),
                Cell(
                    fmt.NONE if most is None else str(fmt.estimate(most.nats.mean, most.nats.ci)),
                    "" if most is None else setting(report, most.first, most.second, most.order),
                ),
                Cell(
                    visible(one.note) or "no setting of both is finite"
                    if most is None
                    else kind_text(most, report.margin),
                    f"departs at {departing} of {len(one.interactions)}" if one.interactions else "",
                    strong=bool(departing),
                ),
            )
        )
    return Table(
        caption=caption,
        columns=(
            Column(column, "name"),
            Column(f"KL of the {told_of(report)}", priority=2),
            Column("Average I, nats per token" + (", p corrected" if kinds else "")),
            Column("With 95 % interval", "chart"),
            Column("Largest I", priority=1),
            Column("", "text"),
        ),
        rows=tuple(rows),
        axis=axis(scale, "nats; right of 0 they compound"),
        style="stack strips",
    )


def average_p(part: SurfaceSlice) -> float | None:
    """The corrected p value of a class's average; None of any other part."""
    return part.average_p if isinstance(part, SurfaceTokenClass) else None


def _by_setting(report: SurfaceReport, caption: str, parts: Parts) -> Table:
    """A row a setting, a column a part."""
    told = [(name, one.kl_by_setting) for name, one in parts if len(one.kl_by_setting) == len(report.points)]
    rows = []
    for place, point in enumerate(report.points if told else ()):
        kls = [fmt.estimate(means[place].mean, means[place].ci) for _, means in told]
        where = setting(report, point.first, point.second, point.order)
        rows.append((Cell(where), *(Cell(kl.value, kl.interval or "") for kl in kls)))
    return Table(
        caption=caption,
        columns=(Column("Setting", "name"), *(Column(visible(name)) for name, _ in told)),
        rows=tuple(rows),
        style="stack strips",
    )
