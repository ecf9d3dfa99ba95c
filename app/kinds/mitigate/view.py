"""The report of a mitigation as blocks: does something help, what it costs, and what is left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from app.kinds.mitigate.front import front, growth, spread, words
from app.kinds.mitigate.onwards import fetching, sources
from app.kinds.mitigate.report import Answer, FrontPoint, MitigateReport
from app.kinds.mitigate.trials import damage, trials, unhelpful
from app.reports import format as fmt
from app.reports.blocks import Block, Code, Figure, Figures, Note, Section
from app.reports.common import closing, document_sets, headline, title
from app.reports.estimates import estimate_cell
from app.reports.untrusted import visible

_LEAVE: Final = "Leave the candidate as it is."
_ELSE: Final = "Leave the candidate as it is, give a larger budget, allow other treatments, or damage it less."
# Of each answer but "treated": the heading, the mark before what to do, and what to do.
_NO_RECIPE: Final[Mapping[Answer, tuple[str, str, str]]] = {
    "no_damage": ("Nothing to treat", "No damage", _LEAVE),
    "no_damage_that_matters": ("Nothing to treat", "No damage that matters", _LEAVE),
    "does_not_hold": ("Nothing recommended", "Nothing helps for sure", _ELSE),
    "nothing_tried": ("Nothing recommended", "Nothing could be tried", _ELSE),
    "nothing_helps": ("Nothing recommended", "Nothing helps", _ELSE),
}
_SETS: Final = {
    "fit": "treatments look at it",
    "choose": "finds the damage, and chooses",
    "test": "read once: what is reported of front and recommendation",
}


def blocks(report: MitigateReport) -> list[Block]:
    """What the report shows, first what is recommended."""
    whose = "what is recommended" if report.helped else "the candidate"
    return [
        title(report, what="mitigation report", heading=heading(report), preposition="towards"),
        Section("treated", heading(report), [*_answer(report), *_recipe(report)]),
        Section("front", "KL against bytes", front(report), "Front"),
        Section("damage", "Where the damage is", damage(report), "Damage"),
        Section("unhelpful", "What did not help", unhelpful(report)),
        Section("trials", "Trials", trials(report)),
        headline(
            report,
            chart_title=f"Excess KL over the noise floor of {whose}",
            sentence=left(report),
            nav="What is left",
        ),
        Section("protocol", "Protocol", [_sets(report), Note(protocol(report))]),
        *closing(report),
    ]


def heading(report: MitigateReport) -> str:
    """`Treated`, that nothing helps, or that there is nothing that needs it."""
    return "Treated" if report.answer == "treated" else _NO_RECIPE[report.answer][0]


def _answer(report: MitigateReport) -> list[Block]:
    sentence = Note(visible(report.verdict), kind="sentence", brief=True)
    figures = Figures(_figures(report), brief=True)
    if report.answer == "treated":
        return [sentence, Note(recommendation(report), "Recommended", "good", brief=True), figures]
    told, mark, advice = _NO_RECIPE[report.answer]
    return [sentence, Note(advice, mark, "good" if told == "Nothing to treat" else "bad", brief=True), figures]


def recommendation(report: MitigateReport) -> str:
    """The recommended treatments in words, and what their recipe can be used for."""
    return f"{words(_recommended(report))}. {_ready(report)}"


def _ready(report: MitigateReport) -> str:
    looked_at = sources(report)
    if "self" in looked_at:
        return "Its recipe is ready for compare; a deployment cannot sample calibration text from the reference."
    if "inline" in looked_at:
        return "The artifact recipe.json is ready for compare and deploy; this report leaves out its documents."
    return "Its recipe is ready for compare and deploy."


def _recommended(report: MitigateReport) -> FrontPoint:
    """Raises StopIteration if there is none."""
    return next(point for point in report.front if point.recommended)


def _figures(report: MitigateReport) -> tuple[Figure, ...]:
    before = estimate_cell(report.raw.divergence.kl)
    if report.removed is None or report.saved is None:
        return (
            Figure("KL of the candidate", before.text, "nats per token", before.note, "on the test documents"),
            Figure("Recipes tried", str(len(report.trials)), "made and measured", "", "none is recommended"),
        )
    point = _recommended(report)
    removed, now = estimate_cell(report.removed, percent=True), estimate_cell(report.divergence.kl)
    saved = fmt.estimate(report.saved.mean, report.saved.ci)
    grown = growth(point.bytes, report.candidate_bytes)
    bits = f"{fmt.number(point.bits_per_weight, 4)} bits per weight"
    speed, slower = fmt.count(round(point.tokens_per_second)), ""
    if point.added_latency is not None:
        slower = f"{fmt.signed(100 * point.added_latency, 2)} % time per token"
    return (
        Figure("KL removed", removed.text, "% of the candidate’s", removed.note, f"{saved} nats per token, paired"),
        Figure("KL", now.text, "nats per token", now.note, f"{before.text} before"),
        Figure("Size", fmt.size(point.bytes), bits, grown, f"the candidate takes {fmt.size(report.candidate_bytes)}"),
        Figure("Tokens/s", speed, "of the engine that scores", spread(point), slower),
    )


def _recipe(report: MitigateReport) -> list[Block]:
    if not report.recommended:
        return []
    steps = ",\n".join(f"  {visible(json.dumps(step, ensure_ascii=False))}" for step in report.recommended)
    return [
        Code(f"[\n{steps}\n]", "The recommended recipe"),
        Code("\n".join(map(visible, fetching(report))), "What to do with it"),
    ]


def left(report: MitigateReport) -> str:
    """The sentence of the verdict's section: what is still lost."""
    whose = "recommended model" if report.helped else "candidate"
    kl = fmt.estimate(report.divergence.kl.mean, report.divergence.kl.ci)
    return f"What is left: the {whose} loses {kl} nats per token on the test documents."


def _sets(report: MitigateReport) -> Block:
    overlap = (report.request or {}).get("allow_overlap")
    return document_sets(report.sets, _SETS, "Sets of documents, which may share some" if overlap else "")


def protocol(report: MitigateReport) -> str:
    """Budget, and how the test was kept apart."""
    budget = report.budget
    limits = []
    if budget.bytes is not None:
        limits.append(f"{fmt.count(budget.bytes)} bytes{' (the default: a quarter more)' if budget.by_default else ''}")
    if budget.bits_per_weight is not None:
        limits.append(f"{fmt.number(budget.bits_per_weight, 4)} bits per weight")
    if budget.added_latency is not None:
        limits.append(f"{fmt.number(100 * budget.added_latency, 3)} % more time per token")
    return (
        f"Budget: {', '.join(limits)}. Front, recommendation and rule were frozen (SHA-256 {report.seal.frozen[:16]}…) "
        f"before the test documents were opened, once, at {fmt.moment(report.seal.opened_at)}."
    )
