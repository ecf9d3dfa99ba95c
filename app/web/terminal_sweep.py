"""The report of a sweep job in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.contracts.report import Mean
from app.kinds.sweep.report import SweepPoint, SweepReport, SweepSlice, Threshold
from app.models.knobs import told
from app.web import format as fmt
from app.web.sections.domain_words import unjudged
from app.web.sections.sweep_slices import KIND, OVERLAP, unadjusted
from app.web.sections.sweep_tables import has_kernels, kernels_note
from app.web.sections.sweep_tasks import HALF, largest_of, lost, outcome, rules_of, stopped_by
from app.web.sections.sweep_words import (
    FORMS,
    UNJUDGED,
    by_damage,
    furthest,
    heading,
    in_order,
    kinds,
    largest_column,
    largest_within,
    last_mild,
    limits_of,
    lossless_note,
    mild_column,
    mild_up_to,
    passed,
    severity,
)
from app.web.sections.tasks_words import score
from app.web.terminal_parts import WIDE, Say, capitals, head, plain_table, small_print
from app.web.untrusted import visible


def render_sweep(report: SweepReport, console: Console, say: Say) -> None:
    """Prints it: what was found, the points, the limits, the thresholds."""
    wide = console.width >= WIDE
    head(report, console, say)
    console.print()
    names = [visible(name) for name in (report.knob.field, *map(told, report.knob.values))]
    console.print(Text(say(capitals(heading(report), names)), style="bold"))
    console.print(Text(say(visible(report.verdict))))
    for warning in report.warnings:
        console.print(Text.assemble(("Warning: ", "bold"), say(visible(warning))))
    console.print()
    console.print(_points(report, say, wide=wide))
    if _marked(report):
        console.print(Text(say("> the last setting that stays mild")))
        console.print()
    if has_kernels(report):
        console.print(Text(say(visible(kernels_note(report)))))
    console.print(_limits(report, say))
    if beyond := lossless_note(report):
        console.print(Text(say(beyond)))
    rules = rules_of(report)
    if not rules:
        console.print(Text(say(HALF)))
    if any(rule.answered for _, rule in rules):
        console.print(_answered(report, say, wide=wide))
    if few := unjudged(report.domains):
        console.print(Text(say(few)))
    elif report.domains:
        console.print(_slices(report, "By domain", "Domain", by_damage(report, report.domains), say, wide=wide))
    _kinds(report, console, say, wide=wide)
    for threshold in (report.threshold, report.threshold_kl):
        if threshold is not None:
            _threshold(threshold, console, say)
    console.print(Text(say(visible(report.choice.note))))
    small_print(report, console, say)


def _points(report: SweepReport, say: Say, *, wide: bool) -> Table:
    columns = [(say(visible(report.knob.field)), False)]
    columns += [("s", True)] if wide else []
    columns += [("Severity", False), ("KL, nats", True), ("95 % interval", True), ("PPL ratio", True)]
    columns += [("Top-1, %", True), ("Size", True)] if wide else []
    kernels = has_kernels(report)
    columns += [("Kernel term", True)] if kernels else []
    table = plain_table(say(visible(f"Settings, {in_order(report)}")), columns)
    for point in report.points:
        kl = fmt.Estimate(fmt.NONE, None)
        if point.divergence is not None:
            kl = fmt.estimate(point.divergence.kl.mean, point.divergence.kl.ci)
        ratio = None if point.perplexity is None else point.perplexity.ratio.mean
        cells = [fmt.number(point.s)] if wide else []
        cells += [
            "not run" if point.refused else _classes(point),
            kl.value,
            kl.interval or fmt.NONE,
            fmt.number(ratio, 4),
        ]
        if wide:
            top1 = None if point.top1_agreement is None else point.top1_agreement.mean
            cells += [
                fmt.NONE if top1 is None else fmt.percent(top1),
                fmt.NONE if point.bytes is None else fmt.size(point.bytes),
            ]
        if kernels:
            term = point.kernel_term
            cells.append(fmt.NONE if term is None else fmt.estimate(term.kl.mean, term.kl.ci).value)
        last = last_mild(report, point.value)
        name = ("> " if last else "  ") + visible(told(point.value))
        table.add_row(Text(say(name), style="bold" if last else ""), *map(say, cells))
    return table


def _classes(point: SweepPoint) -> str:
    """The class of damage, and with a question mark every class that the interval touches where it is not decided."""
    shown = severity(point)
    return shown if shown == UNJUDGED or len(point.classes) < 2 else f"{' or '.join(point.classes)}?"


def _marked(report: SweepReport) -> bool:
    return any(last_mild(report, point.value) for point in report.points)


def _limits(report: SweepReport, say: Say) -> Table:
    columns = [("", False), (largest_column(report), False), ("Passed at", True), ("95 % interval", True)]
    table = plain_table("How far one may go", columns)
    table.columns[0].min_width = len("near-lossless")
    each = [
        (f"{name} {side}".strip(), limit)
        for side, mild, lossless in limits_of(report)
        for name, limit in (("stays mild", mild), ("near-lossless by PPL", lossless))
    ]
    for name, limit in each:
        if limit is None:
            continue
        # As Text, for "[before the weakest, 0.1]" would be taken for markup.
        places = (Text(say(cell)) for cell in passed(report, limit))
        table.add_row(Text(say(visible(name))), Text(say(largest_within(limit))), *places)
    for side, rule in rules_of(report):
        name, by = f"near-lossless by both {side}".strip(), stopped_by(rule).removeprefix("stopped ")
        table.add_row(Text(say(visible(name))), Text(say(largest_of(rule))), Text(say(by)), "")
    return table


def _answered(report: SweepReport, say: Say, *, wide: bool) -> Table:
    """What is lost on tasks at each setting that was asked, and the mean that decides."""
    columns = [(say(visible(report.knob.field)), False), ("Task", False)]
    columns += [("Items", True)] if wide else []
    columns += [("Ref, %", True), ("Cand, %", True), ("Lost, %", True), ("95 % interval", True), ("Outcome", False)]
    table = plain_table("What is lost on tasks, % of the reference's accuracy", columns)
    for _, rule in rules_of(report):
        for one in rule.answered:
            rows: list[tuple[str, int | None, str, str, Mean | None]] = [
                (visible(task.name), task.items, score(task.reference), score(task.candidate), task.loss)
                for task in one.tasks
            ]
            if len(rows) > 1:
                rows.append(("mean", None, fmt.NONE, fmt.NONE, one.degradation))
            for place, (name, items, reference, candidate, mean) in enumerate(rows):
                shown = lost(mean)
                cells = [fmt.NONE if items is None else fmt.count(items)] if wide else []
                told_ = "at chance" if mean is None else shown.interval or fmt.NONE
                cells += [reference, candidate, shown.value, told_]
                cells += [outcome(one) if place == len(rows) - 1 else ""]
                first = visible(told(one.value)) if place == 0 else ""
                table.add_row(Text(say(first)), Text(say(name)), *(Text(say(cell)) for cell in cells))
    return table


def _kinds(report: SweepReport, console: Console, say: Say, *, wide: bool) -> None:
    """The kinds of token, or why none can be judged."""
    rows = kinds(report)
    if line := unjudged(dict(rows), KIND):
        console.print(Text(say(visible(line))))
    elif rows:
        console.print(_slices(report, "By kind of token", "Kind of token", rows, say, wide=wide))
        console.print(Text(say(f"{OVERLAP} {unadjusted(rows)}")))


def _slices(
    report: SweepReport, title: str, column: str, rows: Sequence[tuple[str, SweepSlice]], say: Say, *, wide: bool
) -> Table:
    """How far each part of the text goes, and what it loses at the strongest setting."""
    last_name = f"KL at the {furthest(report).replace(' setting', '')}"
    columns = [
        (column, False),
        *([("Tokens", True)] if wide else []),
        (mild_column(report), False),
        (say(visible(last_name)), True),
        ("95 % interval", True),
    ]
    table = plain_table(title, columns)
    for name, part in rows:
        last = fmt.estimate(part.kl[-1].mean, part.kl[-1].ci)
        table.add_row(
            Text(say(visible(name))),
            *([say(fmt.count(part.tokens))] if wide else []),
            Text(say(mild_up_to(part))),
            say(last.value),
            say(last.interval or part.note or fmt.NONE),
        )
    return table


def _threshold(threshold: Threshold, console: Console, say: Say) -> None:
    of = "perplexity" if threshold.of == "perplexity" else "KL"
    knee = fmt.estimate(threshold.s0, threshold.ci)
    words = {
        "transition": f"the {of} turns at s0 = {knee}"
        + (", as the published form has it, which does not fit" if threshold.ill_fitting else ""),
        "no transition in range": f"the {of} has no transition in range",
        "not identifiable": f"not identifiable on the {of}; best fit {knee}",
    }
    if not threshold.turn_shown:
        words["not identifiable"] = f"whether the {of} turns cannot be told; best fit {knee}"
    console.print(Text.assemble(("Threshold: ", "bold"), say(words[threshold.answer])))
    for reason in (*threshold.reasons, *threshold.warnings):
        console.print(Text(say(f"  {visible(reason)}")))
    slopes = threshold.slopes
    best = f"best form: {FORMS.get(threshold.form, threshold.form)}"
    if threshold.unjudged:
        best = "no choice of form: too few points"
    console.print(
        Text(
            say(
                f"  {best}; slope of ln {of} per unit of s: "
                f"{_slope(slopes.measured_below, slopes.measured_below_ci)} below s0 = {fmt.number(threshold.s0)}, "
                f"{_slope(slopes.measured_above, slopes.measured_above_ci)} above"
            )
        )
    )


def _slope(slope: float | None, ci: tuple[float, float] | None) -> str:
    return "not measured (fewer than two points)" if slope is None else str(fmt.estimate(slope, ci))
