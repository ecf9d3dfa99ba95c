"""What a mitigate job found: does something help, the front, the worst tokens before and after, and what did not."""

from __future__ import annotations

import json
from dataclasses import dataclass

from markupsafe import Markup

from app.contracts.report import Passage
from app.kinds.mitigate.report import NO_WOUND, FrontPoint, MitigateReport
from app.reports import blocks
from app.reports.blocks import Cell, Column, Figure, Table
from app.web import format as fmt
from app.web.charts import Guide, axis, change_strip, interval_strip
from app.web.charts_front import Dot, front_chart
from app.web.heat import HeatScale, heat_passage, largest_kl
from app.web.scales import LogScale
from app.web.sections.onwards import fetching, sources
from app.web.sections.trials import described, protocol, sets, trials, trials_note, unhelpful, wound, wound_note
from app.web.untrusted import visible

FIRST_ROWS = 15
MAX_TOKEN = 40


@dataclass(frozen=True)
class Pair:
    """The same text before and after treatment."""

    before: blocks.Passage
    after: blocks.Passage


@dataclass(frozen=True)
class Front:
    """Texts, chart and tables of the page."""

    mark: str
    good: bool
    heading: str
    sentence: str
    outcome: str
    figures: tuple[Figure, ...]
    chart: Markup | None
    points: Table
    rule: str
    recipe: str
    commands: str
    pairs: tuple[Pair, ...]
    legend: tuple[tuple[int, str], ...]
    tokens: Table
    more: Table
    tokens_note: str
    wound: Table
    wound_note: str
    unhelpful: Table
    trials: Table
    trials_note: str
    sets: Table
    protocol: str


def front(report: MitigateReport) -> Front:
    """The view of a report."""
    scale = HeatScale.up_to(largest_kl([rescue.before for rescue in report.passages]))
    stored = any(token.token is not None for token in report.worst_tokens)
    return Front(
        mark=_mark(report),
        good=report.helped or healthy(report),
        heading=heading(report),
        sentence=visible(report.verdict),
        outcome=outcome(report),
        figures=_figures(report),
        chart=_chart(report),
        points=_points(report),
        rule=visible(report.rule),
        recipe=_recipe(report),
        commands="\n".join(map(visible, fetching(report))),
        pairs=tuple(Pair(_heat(rescue.before, scale), _heat(rescue.after, scale)) for rescue in report.passages[:12]),
        legend=scale.legend,
        tokens=_tokens(report, 0, FIRST_ROWS, stored=stored),
        more=_tokens(report, FIRST_ROWS, 50, stored=stored),
        tokens_note=_tokens_note(report),
        wound=wound(report),
        wound_note=wound_note(report),
        unhelpful=unhelpful(report),
        trials=trials(report),
        trials_note=trials_note(report),
        sets=sets(report),
        protocol=protocol(report),
    )


def heading(report: MitigateReport) -> str:
    """`Treated`, that nothing helps, or that there is nothing that needs it."""
    if healthy(report):
        return "Nothing to treat"
    return "Treated" if report.helped else "Nothing recommended"


def unharmed(report: MitigateReport) -> bool:
    """Whether the candidate loses nothing on the test documents."""
    kl = report.raw.divergence.kl.mean
    return not report.helped and kl is not None and kl < NO_WOUND


def healthy(report: MitigateReport) -> bool:
    """Whether nothing is recommended to a candidate that needs nothing: it loses nothing, or for sure less than what
    is mild."""
    return unharmed(report) or (not report.helped and report.decision.classes == ("none",))


def outcome(report: MitigateReport) -> str:
    """What to do."""
    if unharmed(report):
        return "Leave the candidate as it is: there is no damage that a treatment could take away."
    if healthy(report):
        return (
            "Leave the candidate as it is: what it loses is less than what is mild, and no treatment takes it away for "
            "sure."
        )
    if not report.helped:
        return "Leave the candidate as it is, give a larger budget, allow other treatments, or damage it less."
    point = recommended(report)
    return f"{described(point)}: {_growth(point.bytes, report.candidate_bytes)}. {_ready(report)}"


def _mark(report: MitigateReport) -> str:
    """What stands out before the outcome."""
    if report.helped:
        return "Recommended."
    if unharmed(report):
        return "No damage."
    return "No damage that matters." if healthy(report) else "Nothing helps."


def _ready(report: MitigateReport) -> str:
    """What the recommended recipe can be used for as it stands in the report."""
    looked_at = sources(report)
    if "self" in looked_at:
        return (
            "The recipe below is ready for compare; a deployment cannot sample its calibration text from the reference."
        )
    if "inline" in looked_at:
        return "The artifact recipe.json is ready for compare and deploy; below, its documents are left out."
    return "The recipe below is ready for compare and deploy."


def recommended(report: MitigateReport) -> FrontPoint:
    """The recommended point. Raises StopIteration where there is none."""
    return next(point for point in report.front if point.recommended)


def left(report: MitigateReport) -> str:
    """The sentence of the verdict's section: what is still lost."""
    whose = "recommended model" if report.helped else "candidate"
    kl = fmt.estimate(report.divergence.kl.mean, report.divergence.kl.ci)
    return f"What is left: the {whose} loses {kl} nats a token on the test documents."


def _growth(size: int, base: int) -> str:
    change = 100 * (size - base) / max(1, base)
    if abs(change) < 0.005:
        return "as many bytes as the candidate"
    return f"{fmt.number(abs(change), 3)} % {'more' if change > 0 else 'fewer'} bytes than the candidate"


def _removed(report: MitigateReport) -> fmt.Estimate:
    """The share of the candidate's KL that the recommended recipe removes; reports of before it was kept have its mean
    alone."""
    if report.removed is not None:
        return fmt.estimate(report.removed.mean, report.removed.ci, percent=True)
    saved, before = report.saved, report.raw.divergence.kl.mean
    return fmt.estimate((saved.mean or 0.0) / before if saved is not None and before else None, None, percent=True)


def _figures(report: MitigateReport) -> tuple[Figure, ...]:
    before, after = report.raw.divergence.kl, report.divergence.kl
    if not report.helped or report.saved is None:
        kl = fmt.estimate(before.mean, before.ci)
        return (
            Figure(
                "KL of the candidate", kl.value, "nats a token", kl.interval or "no interval", "on the test documents"
            ),
            Figure("Recipes tried", str(len(report.trials)), "made and measured", "", "none is recommended"),
        )
    point = recommended(report)
    removed = _removed(report)
    kl = fmt.estimate(after.mean, after.ci)
    saved = fmt.estimate(report.saved.mean, report.saved.ci)
    latency = point.added_latency
    return (
        Figure(
            "KL removed",
            removed.value,
            "% of the candidate’s",
            removed.interval or "no interval",
            f"{saved} nats a token, paired",
        ),
        Figure("KL", kl.value, "nats a token", kl.interval or "no interval", f"{fmt.number(before.mean)} before"),
        Figure(
            "Size",
            fmt.size(point.bytes),
            f"{fmt.number(point.bits_per_weight, 4)} bits a weight",
            "",
            f"{_growth(point.bytes, report.candidate_bytes)} ({fmt.size(report.candidate_bytes)})",
        ),
        Figure(
            "Tokens/s",
            fmt.count(round(point.tokens_per_second)),
            "of the engine that scores",
            spread(point) or "",
            "" if latency is None else f"{fmt.signed(100 * latency, 2)} % time a token",
        ),
    )


def spread(point: FrontPoint) -> str | None:
    """The slowest and the fastest pass that a speed is the median of; None where none was timed."""
    if point.tokens_per_second_range is None:
        return None
    slowest, fastest = (fmt.count(round(one)) for one in point.tokens_per_second_range)
    return f"passes {slowest} to {fastest}"


def _slower(point: FrontPoint) -> str | None:
    return None if point.added_latency is None else f"{fmt.signed(100 * point.added_latency, 2)} % time"


def _chart(report: MitigateReport) -> Markup | None:
    dots = []
    number = 0
    for point in report.front:
        if point.kl.mean is None:
            continue
        number += 1
        kind = "recommended" if point.recommended else "candidate" if not point.treatments else "front"
        label = "candidate" if kind == "candidate" else f"{number}"
        if kind == "recommended":
            label += ", recommended"
        title = f"{described(point)}, {fmt.estimate(point.kl.mean, point.kl.ci)} nats, {fmt.size(point.bytes)}"
        dots.append(Dot(label, title, point.bytes, point.kl.mean, point.kl.ci, point.tokens_per_second, kind))
    if len(dots) < 2:  # the candidate alone is no front
        return None
    return front_chart(dots, budget=report.budget.bytes, note="KL on the test documents against bytes")


def _points(report: MitigateReport) -> Table:
    known = [value for point in report.front for value in (point.kl.mean, *(point.kl.ci or ())) if value and value > 0]
    scale = LogScale.around(*known)
    rows = []
    for number, point in enumerate(report.front, 1):
        kl = fmt.estimate(point.kl.mean, point.kl.ci)
        saved = None if point.saved is None else fmt.estimate(point.saved.mean, point.saved.ci)
        choose = fmt.estimate(point.choose_kl.mean, point.choose_kl.ci)
        notes = ["recommended"] if point.recommended else []
        notes += [] if point.within_budget else ["beyond the budget"]
        rows.append(
            (
                Cell(str(number)),
                Cell(described(point), ", ".join(notes), strong=point.recommended),
                Cell(fmt.size(point.bytes), _change(point.bytes, report.candidate_bytes)),
                Cell(fmt.number(point.bits_per_weight, 4)),
                Cell(kl.value, kl.interval or "no interval", strong=True),
                Cell(
                    chart=interval_strip(
                        f"{number}: {kl} nats", point.kl.mean, point.kl.ci, scale, [Guide(scale.low, "base")]
                    )
                ),
                Cell(fmt.NONE if saved is None else saved.value, "" if saved is None else saved.interval or ""),
                Cell(choose.value, choose.interval or "no interval"),
                Cell(
                    fmt.count(round(point.tokens_per_second)),
                    ", ".join(filter(None, (spread(point), _slower(point)))),
                ),
            )
        )
    return Table(
        caption="The front: what no other recipe beats in bytes and KL at once",
        columns=(
            Column("", "name"),
            Column("Treatment", "text"),
            Column("Size"),
            Column("Bits a weight"),
            Column("KL on test, nats"),
            Column("With 95 % interval", "chart"),
            Column("Saved, nats"),
            Column("KL to choose by, nats"),
            Column("Tokens/s"),
        ),
        rows=tuple(rows),
        axis=axis(scale, "KL in nats, logarithmic axis"),
    )


def _change(size: int, base: int) -> str:
    return "" if size == base else f"{fmt.signed(100 * (size - base) / max(1, base), 3)} %"


def _recipe(report: MitigateReport) -> str:
    """The recommended steps as JSON, one a line; empty where there is none."""
    if not report.recommended:
        return ""
    return "[\n" + ",\n".join(f"  {json.dumps(step, ensure_ascii=False)}" for step in report.recommended) + "\n]"


def _heat(passage: Passage, scale: HeatScale) -> blocks.Passage:
    return heat_passage(passage, scale)


def _tokens(report: MitigateReport, first: int, last: int, *, stored: bool) -> Table:
    rows = report.worst_tokens[first:last]
    values = [value for token in report.worst_tokens for value in (token.kl, token.kl_after) if value > 0]
    scale = LogScale.around(*values)
    named = [Column("Observed token", "code")] if stored else [Column("Token id", "name")]
    tops = (
        [Column("Reference’s first choice", "code"), Column("Before", "code"), Column("After", "code")]
        if stored
        else []
    )
    return Table(
        caption="The candidate’s worst tokens, before and after"
        if not first
        else f"{first + 1} to {first + len(rows)}",
        columns=(
            *named,
            Column("KL before, nats"),
            Column("KL after, nats"),
            Column("Before → after", "chart"),
            Column("p, before → after of it"),
            *tops,
            Column("Document", "text"),
            Column("Position"),
        ),
        rows=tuple(
            (
                Cell(_quoted(token.token) if stored else str(token.token_id)),
                Cell(fmt.number(token.kl)),
                Cell(fmt.number(token.kl_after), strong=True),
                Cell(
                    chart=change_strip(
                        f"KL from {fmt.number(token.kl)} to {fmt.number(token.kl_after)}",
                        token.kl,
                        token.kl_after,
                        scale,
                    )
                ),
                Cell(
                    f"{fmt.number(token.probability_reference, 2)}, {fmt.number(token.probability_candidate, 2)} → "
                    f"{fmt.number(token.probability_after, 2)}"
                ),
                *(
                    (
                        Cell(_quoted(token.reference_top)),
                        Cell(_quoted(token.candidate_top)),
                        Cell(_quoted(token.top_after)),
                    )
                    if stored
                    else ()
                ),
                Cell(visible(token.document), visible(token.domain)),
                Cell(fmt.count(token.position)),
            )
            for token in rows
        ),
        axis=axis(scale, "KL in nats, logarithmic axis"),
    )


def _tokens_note(report: MitigateReport) -> str:
    if not report.worst_tokens:
        return ""
    better = sum(token.kl_after < token.kl for token in report.worst_tokens)
    text = (
        f"Of the candidate’s {len(report.worst_tokens)} worst test tokens, {better} are better after treatment. They "
        "were picked because the candidate is worst there, so that some of their gain is chance; the mean over all "
        "tokens has none of it."
    )
    if not report.passages:
        text += " The text itself is not in this report (store_text)."
    return text


def _quoted(token: str | None) -> str:
    if token is None:
        return fmt.NONE
    text = visible(token).replace(" ", "·")
    return text if len(text) <= MAX_TOKEN else f"{text[:MAX_TOKEN]}…"
