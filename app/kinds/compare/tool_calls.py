"""Tool calls that both models wrote: shares side by side, their difference, and where they part."""

from __future__ import annotations

from markupsafe import Markup

from app.contracts.report import GeneratedToolCalls, PairedProportion, Proportion
from app.kinds.compare.report import CompareReport
from app.models.tasks.power import LEVEL
from app.reports import format as fmt
from app.reports.blocks import Block, Cell, Column, Note, Section, Table, fold
from app.reports.charts.marks import Guide, axis, interval_strip
from app.reports.scales import LinearScale
from app.reports.untrusted import visible

NAMES = {"parsable": "A call that parses", "valid": "Valid by the schema", "right_tool": "Valid, of the right tool"}
FORMS = {
    "template": "The model’s own chat template shows the tools.",
    "written": "The model’s chat template has no place for tools: they stand in the system message, as JSON.",
}


def tool_calls(report: CompareReport) -> list[Block]:
    """The section of a report; nothing if no call was generated."""
    found = report.tool_calls
    if found is None:
        return []
    count = len(found.examples)
    examples = [_examples(found)] if found.examples else []
    unstored = found.examples and found.examples[0].reference is None
    blocks: list[Block] = [
        Note(sentence(found), kind="plain", brief=True),
        _shares(found),
        Note(_rule(found), "Rule"),
        *fold(
            f"{fmt.counted(count, 'prompt')} where the two part",
            [*examples, *([Note("Answers are not stored.")] if unstored else [])],
        ),
    ]
    return [Section("tool-calls", "Generated tool calls", blocks, "Tool calls")]


def _shares(found: GeneratedToolCalls) -> Table:
    scale = LinearScale(-100.0, 100.0)
    return Table(
        caption="Share of answers, candidate against reference",
        columns=(
            Column("Answers with", "name"),
            Column("Reference, %"),
            Column("Candidate, %"),
            Column("Difference and 95 % interval", "chart"),
            Column("Difference, points"),
            Column("Lost", priority=1),
            Column("Gained", priority=1),
            Column("p, exact"),
        ),
        rows=tuple(_row(NAMES[name], pair, scale) for name, pair in pairs(found)),
        axis=axis(scale, "Candidate’s share minus the reference’s, percentage points"),
        style="stack strips",
    )


def _rule(found: GeneratedToolCalls) -> str:
    return visible(
        f"{found.rule} {FORMS[found.form]} {found.prompts} prompts, answers of at most {found.max_tokens} tokens; "
        f"{found.cut_off[0]} of the reference’s and {found.cut_off[1]} of the candidate’s were cut off there. "
        "Lost and gained are prompts; p is McNemar’s, for each line by itself."
    )


def pairs(found: GeneratedToolCalls) -> list[tuple[str, PairedProportion]]:
    """The shares that were compared, by name."""
    known = [("parsable", found.parsable), ("valid", found.valid)]
    return known if found.right_tool is None else [*known, ("right_tool", found.right_tool)]


def sentence(found: GeneratedToolCalls) -> str:
    """The share of valid calls of both, and whether they differ."""
    valid = found.valid
    if not valid.reference.count and not valid.candidate.count:
        return (
            f"Neither model answers any of {found.prompts} prompts with a valid call, so none can be lost: these "
            f"prompts do not show what became of the reference’s tool calls. {_help(found)}"
        )
    return (
        f"Of {found.prompts} prompts with tools the reference answers {share(valid.reference)} with valid calls, the "
        f"candidate {share(valid.candidate)}: {points(valid)}, {_apart(valid)}."
    )


def _apart(pair: PairedProportion) -> str:
    """Whether a difference is shown. McNemar's exact test decides, as of tasks. It is a little stricter than the
    interval, which may leave out 0 if few prompts flip: then both are reported."""
    if pair.p_value < LEVEL:
        return "which chance does not explain"
    told, (low, high) = "which is no difference that so many prompts show", pair.ci
    if low <= 0 <= high:
        return told
    p = fmt.number(pair.p_value, 2)
    return f"{told}: McNemar’s exact test has p {p}, although the interval leaves out 0"


def _help(found: GeneratedToolCalls) -> str:
    """What would make calls show where there are none."""
    if found.form == "written":
        return "The model’s chat template has no place for tools: it was hardly made to call any."
    if max(found.cut_off) * 2 >= found.prompts:
        return f"Most answers were cut off at {found.max_tokens} tokens: let them be longer."
    return "Give prompts that the reference answers with calls."


def share(part: Proportion) -> str:
    """A share with its interval and count."""
    text = fmt.estimate(part.share, part.ci, percent=True)
    return f"{text.value} % {text.interval} ({part.count} of {part.of})"


def points(pair: PairedProportion) -> str:
    """A difference in percentage points with its interval."""
    text = fmt.estimate(pair.difference, pair.ci, percent=True)
    return f"{plus(pair.difference)}{text.value} points {text.interval}"


def plus(difference: float) -> str:
    """The sign of what is more; a minus is in the number."""
    return "+" if difference > 0 else ""


def _row(name: str, pair: PairedProportion, scale: LinearScale) -> tuple[Cell, ...]:
    gap = fmt.estimate(pair.difference, pair.ci, percent=True)
    return (
        Cell(name),
        _share_cell(pair.reference),
        _share_cell(pair.candidate),
        Cell(chart=_strip(name, pair, scale)),
        Cell(plus(pair.difference) + gap.value, gap.interval or "", strong=True),
        Cell(fmt.count(pair.lost)),
        Cell(fmt.count(pair.gained)),
        Cell(fmt.number(pair.p_value, 2)),
    )


def _strip(name: str, pair: PairedProportion, scale: LinearScale) -> Markup:
    low, high = pair.ci
    said = f"{name}: {points(pair)}"
    return interval_strip(said, 100 * pair.difference, (100 * low, 100 * high), scale, (Guide(0.0, "overall"),))


def _share_cell(part: Proportion) -> Cell:
    text = fmt.estimate(part.share, part.ci, percent=True)
    return Cell(text.value, f"{text.interval}, {part.count} of {part.of}")


def _examples(found: GeneratedToolCalls) -> Table:
    """Prompts of another outcome; texts are the models' and untrusted."""
    return Table(
        caption="Where the two part, what the candidate lost first",
        columns=(
            Column("Document", "name"),
            Column("What one has", "text"),
            Column("Reference", "code"),
            Column("Candidate", "code"),
        ),
        rows=tuple(
            (
                Cell(visible(one.document)),
                Cell(
                    f"{NAMES.get(one.lost, visible(one.lost))}: the {one.by} alone", visible(f"the other: {one.reason}")
                ),
                Cell(fmt.NONE if one.reference is None else visible(one.reference)),
                Cell(fmt.NONE if one.candidate is None else visible(one.candidate)),
            )
            for one in found.examples
        ),
    )
