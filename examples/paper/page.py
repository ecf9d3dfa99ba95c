"""The pages of what was measured: paper.md and paper/CLAIM.md, from results.json. Same input, same bytes.

Only the pages of docs/ have the words below `words` and links to the files of the jobs. Only those of the demo model
have each claim's limits, which speak of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from app.contracts.report import Report
from app.reports import format as fmt
from examples.paper.another import Subject
from examples.paper.claim import FOLDER, Claim, Json
from examples.paper.elsewhere import Ruling, fingerprint, made_by, merged, otherwise, read, table
from examples.paper.finding import Chart, Figure, Finding
from examples.paper.measure import Measured
from examples.paper.picture import THEMES, file_name, picture
from examples.paper.versions import versions

BELOW: Final = "paper"
RESULTS: Final = "results.json"
RULINGS: Final = "rulings.csv"
SIGNS: Final = {
    "confirmed": "✔",
    "refuted": "✘",
    "not transferable": "≠",
    "not identifiable": "?",
    "not measured": "–",
}

DEMO: Final = Subject()
_WORDS: Final = FOLDER / "words"
_JOBS: Final = "../examples/paper/jobs"


@dataclass(frozen=True)
class Told:
    """What became of a claim; without a ruling it was not measured."""

    finding: Finding
    ruling: Ruling | None


@dataclass(frozen=True)
class Job:
    """What a job scored, the seconds that it took and what measured it, or why it has no report."""

    tokens: int = 0
    documents: int = 0
    seconds: float = 0.0
    why: str = ""
    measured_by: str = ""


@dataclass(frozen=True)
class Results:
    """All that the pages show: claims by id, jobs by name."""

    claims: dict[str, Told]
    jobs: dict[str, Job]


_RESULTS: Final = TypeAdapter(Results)


def collected(
    claims: Sequence[Claim], findings: Sequence[Finding], jobs: Mapping[str, Measured], requests: Mapping[str, Json]
) -> Results:
    """The results of these claims, from the reports of their jobs."""
    told = {
        claim.id: Told(finding, _ruling(claim, finding, jobs, requests))
        for claim, finding in zip(claims, findings, strict=True)
    }
    return Results(told, {name: _job(found) for name, found in jobs.items()})


def is_current(claim: Claim, told: Told | None, requests: Mapping[str, Json]) -> bool:
    """Whether a claim was ruled on by the rule, jobs and versions of the steps of today."""
    ruling = None if told is None else told.ruling
    return ruling is not None and (ruling.rule, ruling.versions) == (
        rule_of(claim, requests),
        versions_of(claim, requests),
    )


def with_earlier(now: Results, earlier: Results, claims: Sequence[Claim], requests: Mapping[str, Json]) -> Results:
    """With what was published of claims that are not measured now, if it is current."""
    told, jobs = dict(now.claims), dict(now.jobs)
    for claim in claims:
        before = earlier.claims.get(claim.id)
        if now.claims[claim.id].ruling is None and before is not None and is_current(claim, before, requests):
            told[claim.id] = before
            jobs |= {name: earlier.jobs[name] for name in claim.jobs if now.jobs[name].why}
    return Results(told, jobs)


def results_in(folder: Path) -> Results:
    """The results that were written below `folder`. Raises OSError without such a file, ValueError if it is no results'
    file."""
    return _RESULTS.validate_json((folder / BELOW / RESULTS).read_bytes())


def write(
    folder: Path, claims: Sequence[Claim], results: Results, requests: Mapping[str, Json], subject: Subject = DEMO
) -> None:
    """Writes results, rulings, pictures and pages below `folder`, and removes pictures and pages of no claim."""
    below = folder / BELOW
    below.mkdir(parents=True, exist_ok=True)
    charts = [chart for one in results.claims.values() for chart in one.finding.charts]
    for chart in (chart for chart in charts if chart.markup):
        for theme in THEMES:
            _put(below / file_name(chart, theme), picture(chart, theme))
    now = [one.ruling for one in results.claims.values() if one.ruling is not None]
    kept = merged(read(below / RULINGS), now)
    _put(below / RULINGS, table(kept))
    _put(below / RESULTS, _RESULTS.dump_json(results, indent=1).decode() + "\n")
    texts = pages(claims, results, requests, kept, subject)
    for name, text in texts.items():
        _put(folder / name, text)
    wanted = {file_name(chart, theme) for chart in charts for theme in THEMES} | {Path(name).name for name in texts}
    for path in (*below.glob("*.svg"), *below.glob("*.md")):
        if path.name not in wanted:
            path.unlink()


def _put(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def rule_of(claim: Claim, requests: Mapping[str, Json]) -> str:
    """Fingerprint of what decides a claim: its rule as code, how often that was changed, and its jobs."""
    return fingerprint(claim.ruling, len(claim.changes), {job: requests[job] for job in claim.jobs})


def versions_of(claim: Claim, requests: Mapping[str, Json]) -> str:
    """Versions of the steps that make the models of a claim's jobs."""
    return made_by(versions([requests[job] for job in claim.jobs]))


def _ruling(
    claim: Claim, finding: Finding, jobs: Mapping[str, Measured], requests: Mapping[str, Json]
) -> Ruling | None:
    devices = {found.report.provenance.device for job in claim.jobs if (found := jobs[job]).report is not None}
    if finding.outcome == "not measured" or not devices:
        return None
    rule, steps = rule_of(claim, requests), versions_of(claim, requests)
    return Ruling("; ".join(sorted(devices)), claim.id, rule, steps, finding.outcome)


def _job(found: Measured) -> Job:
    if found.report is None:
        return Job(why=found.why)
    return Job(found.report.tokens, found.report.documents, found.seconds, measured_by=_measured_by(found.report))


def _measured_by(report: Report) -> str:
    found = report.provenance
    return (
        f"Hemostat {found.hemostat} with {found.engine} on {found.device}, {found.dtype}, weights "
        f"`{found.reference.weights_fingerprint[:16]}`"
    )


def pages(
    claims: Sequence[Claim],
    results: Results,
    requests: Mapping[str, Json],
    kept: Sequence[Ruling],
    subject: Subject = DEMO,
) -> dict[str, str]:
    """The text of each page, by its path. `kept`: rulings of this and of other devices."""
    summary = _summary(claims, results, kept, subject)
    jobs = _jobs(results, requests, linked=subject.is_demo)
    if subject.is_demo:
        introduction, method, limits = (
            (_WORDS / f"{name}.md").read_text(encoding="utf-8") for name in ("introduction", "method", "limits")
        )
        parts = [introduction, summary, method, limits, jobs]
    else:
        parts = [f"# The paper's claims, tested on {subject.model}\n", summary, jobs]
    index = "\n".join(part.rstrip("\n") + "\n" for part in parts)
    own = {f"{BELOW}/{one.id}.md": _page(one, results.claims[one.id], subject) for one in claims}
    return {"paper.md": index} | own


def shown(claim: Claim, finding: Finding, subject: Subject) -> str:
    """The outcome as the pages show it: the small demo model does not refute a threshold of larger models."""
    if subject.is_small and finding.outcome == "refuted" and claim.threshold_of:
        return "not transferable"
    return finding.outcome


def _summary(claims: Sequence[Claim], results: Results, kept: Sequence[Ruling], subject: Subject) -> str:
    outcomes = [shown(claim, results.claims[claim.id].finding, subject) for claim in claims]
    counts = [f"{outcomes.count(outcome)} {outcome}" for outcome in SIGNS if outcome in outcomes]
    rows = [
        f"| [{claim.title}]({BELOW}/{claim.id}.md) | {SIGNS[outcome]} **{outcome}** "
        f"| {_elsewhere(results.claims[claim.id].ruling, kept)} |".replace("|  |", "| |")
        for claim, outcome in zip(claims, outcomes, strict=True)
    ]
    heading = f"## {len(claims)} claims: {', '.join(counts)}\n"
    return "\n".join([heading, "| claim | on this model | other outcomes |", "|---|---|---|", *rows])


def _elsewhere(now: Ruling | None, kept: Sequence[Ruling]) -> str:
    """Other outcomes of the same rule on other devices."""
    found = {} if now is None else otherwise(kept, now)
    return "; ".join(
        f"{outcome} on {', '.join(devices)}{f' ({mark})' if mark else ''}" for (outcome, mark), devices in found.items()
    )


def _page(claim: Claim, told: Told, subject: Subject) -> str:
    finding = told.finding
    outcome = shown(claim, finding, subject)
    jobs = ", ".join(f"[{job}](../{_JOBS}/{job}.json)" if subject.is_demo else job for job in claim.jobs)
    lines = [
        f"# {claim.title}\n",
        f"{SIGNS[outcome]} **{outcome.capitalize()}.** {_escaped(finding.sentence)}\n",
        *(_shown(chart) for chart in finding.charts),
        *(_numbers(finding.figures) if finding.figures else ()),
        f"- **The paper**: {claim.source}",
        f"- **Claim**: {claim.statement}",
        f"- **Measured**: {claim.measured}",
        f"- **Rule**: {claim.rule}",
        *((f"- **Threshold of**: {claim.threshold_of}",) if claim.threshold_of else ()),
        *(f"- **Change of the rule**: {change}" for change in claim.changes),
        *((f"- **Limits**: {claim.limits}",) if subject.is_small else ()),
        f"- **Jobs**: {jobs}",
    ]
    if told.ruling is not None:
        lines.append(f"- **Versions**: {told.ruling.versions}")
    return "\n".join([*lines, "\n[All claims](../paper.md)\n"])


def _shown(chart: Chart) -> str:
    light, dark = (file_name(chart, theme) for theme in THEMES)
    return (
        f"*{chart.caption}*\n\n"
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{chart.caption}"></picture>\n'
    )


def _numbers(figures: Sequence[Figure]) -> list[str]:
    rows = []
    for figure in figures:
        estimate = fmt.estimate(figure.value, figure.ci)
        cells = (figure.what, estimate.value, estimate.interval or fmt.NONE, figure.unit, figure.against)
        rows.append(f"| {' | '.join(_escaped(cell) for cell in cells)} |")
    return ["| what | value | 95 % interval | unit | against |", "|---|---|---|---|---|", *rows, ""]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _jobs(results: Results, requests: Mapping[str, Json], *, linked: bool) -> str:
    rows = [
        "## The jobs\n",
        "| job | kind | scored tokens | documents | wall time |",
        "|---|---|---|---|---|",
    ]
    for name, found in results.jobs.items():
        shown_name = f"[{name}]({_JOBS}/{name}.json)" if linked else name
        head = f"| {shown_name} | {requests[name]['kind']}"
        if found.why:
            rows.append(f"{head} | not measured: {_escaped(found.why)} | | |")
        else:
            took = fmt.duration(found.seconds)
            rows.append(f"{head} | {fmt.count(found.tokens)} | {found.documents} | {took} |")
    by: dict[str, list[float]] = {}
    for found in results.jobs.values():
        if not found.why:
            by.setdefault(found.measured_by, []).append(found.seconds)
    for measured_by, seconds in by.items():
        rows += [
            "",
            f"{fmt.counted(len(seconds), 'job')} took {fmt.duration(sum(seconds))}. Measured by {measured_by}.",
        ]
    return "\n".join(rows)
