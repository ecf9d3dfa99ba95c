"""What reports of all kinds begin and end with, as blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from app.contracts.profile import DocumentSet
from app.contracts.report import Report
from app.reports import format as fmt
from app.reports.blocks import (
    Alert,
    Block,
    Chart,
    Code,
    Columns,
    Fact,
    Facts,
    Gauge,
    Headline,
    Items,
    Next,
    Note,
    Section,
    Title,
)
from app.reports.origin import Origin, origin
from app.reports.reproduce import of_same_pair
from app.reports.untrusted import visible
from app.reports.verdict import edges, verdict

# What is not tested, in a few words, if its code does not say it.
_NOT_TESTED: Final = {
    "free_running_generation": "text that the candidate generates",
    "long_context": "longer contexts",
    "long_texts": "longer texts",
    "turns_of_users": "messages of users",
    "text_by_people": "text written by people",
    "text_of_the_model": "text written by the reference",
    "executed_code": "running of generated code",
    "settings_between": "settings between the measured ones",
    "other_order": "the other order of the steps",
}


def title(report: Report, *, heading: str, what: str = "", preposition: str = "against") -> Title:
    """The head of a report. `heading` is the answer in a few words; `what` names the report, if its kind does not."""
    source = origin(report)
    text, *others = source.head
    return Title(
        what=what or f"{report.kind} report",
        heading=f"{heading}: {source.candidate} {preposition} {source.reference}",
        candidate=source.candidate,
        reference=source.reference,
        scored=source.scored,
        facts=(Fact(text.name, text.value, brief=True), *_size(report), *others),
        version=visible(report.provenance.hemostat),
        preposition=preposition,
    )


def _size(report: Report) -> tuple[Fact, ...]:
    sizes = [model.bytes for model in (report.provenance.candidate, report.provenance.reference)]
    if None in sizes or sizes[0] == sizes[1]:
        return ()
    candidate, reference = (fmt.size(size or 0) for size in sizes)
    return (Fact("Size", f"{candidate}, reference {reference}", brief=True),)


def headline(
    report: Report, *, chart_title: str = "Excess KL over the noise floor", sentence: str = "", nav: str = ""
) -> Headline:
    """The severity of a report. One that speaks of a part of the report has a `sentence` and an entry in the menu."""
    found = verdict(report)
    excess = report.decision.excess_kl
    alerts = [Alert("Not finite", found.nonfinite, "bad")] if found.nonfinite else []
    alerts += [Alert("Warning", visible(warning.text)) for warning in report.warnings]
    caption = f"{chart_title}, with its 95 % interval, among the classes"
    return Headline(
        severity=report.severity,
        severities=found.classes,
        conclusive=found.conclusive,
        named=found.heading,
        rank=found.rank,
        pips=found.pips,
        sentence=sentence or found.sentence,
        remark=f"{found.margin} {found.to_decide}".strip(),
        alerts=tuple(alerts),
        gauge=None if excess.mean is None else Gauge(excess.mean, excess.ci, edges(report)),
        chart=None if found.chart is None else Chart(caption, found.chart, "nats per token, logarithmic"),
        nav=nav or "Verdict",
        brief=not nav,
    )


def which_layers(report: Report) -> Next:
    """The command that finds the layers that cause the damage."""
    return Next("Which layers cause it?", of_same_pair(report, "attribute"), brief=True)


def closing(report: Report) -> list[Block]:
    """Limits, provenance, and how to get the numbers again."""
    source = origin(report)
    return [_limits(report), _provenance(source), _reproduce(source)]


def _limits(report: Report) -> Section:
    found = verdict(report)
    listed = tuple(visible(one.text) for one in report.not_tested) or ("The report names nothing.",)
    names = tuple(_NOT_TESTED.get(one.code, one.code.replace("_", " ")) for one in report.not_tested)
    tested = [
        Note(found.detectable, "Minimum detectable effect", "plain"),
        Items(listed, "Not tested", names=names, brief=bool(report.not_tested)),
    ]
    rule = [
        Note(found.rule, "Rule", "plain"),
        found.thresholds,
        Note(found.cautions, "Warnings and values that are not finite", "plain"),
    ]
    return Section("limits", "Limits of this verdict", (Columns((tested, rule)),), "Limits")


def _provenance(source: Origin) -> Section:
    groups = tuple([Facts(group.facts, group.heading)] for group in source.groups)
    recipe: tuple[Sequence[Block], ...] = ([Code(source.recipe, "Recipe")], [source.phases])
    return Section("provenance", "Provenance", (source.models, Columns(groups), Columns(recipe)))


def _reproduce(source: Origin) -> Section:
    again = source.reproduction
    blocks: list[Block] = [
        Note("The same weights, text and versions give the same numbers; compare the fingerprints.", kind="plain"),
        *(Note(line) for line in again.missing),
        *([Code(again.cli, "Command line")] if again.cli else []),
        Code(again.curl, "HTTP"),
        Note("HEMOSTAT_URL names the service, for example http://HOST:PORT; the command line reads it too."),
    ]
    return Section("reproduce", "Reproduce", blocks)


def document_sets(sets: Sequence[DocumentSet], roles: Mapping[str, str], heading: str = "") -> Facts:
    """What each set of documents was read for, and how large it is."""
    items = (
        Fact(
            part.name,
            f"{roles[part.name]}; {fmt.counted(part.documents, 'document')}, {fmt.counted(part.tokens, 'token')} "
            f"({visible(', '.join(part.domains))})",
        )
        for part in sets
    )
    return Facts(tuple(items), heading or "Sets that share no document", style="facts wide")
