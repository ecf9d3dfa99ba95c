"""docs/paper.md, its pictures, and its numbers as CSV, out of claims and findings: same input, same bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.contracts.report import Report
from app.web import format as fmt
from examples.paper.age import VERSIONS
from examples.paper.claim import FOLDER, Claim, Json
from examples.paper.elsewhere import Ruling, fingerprint, made_by, merged, otherwise, read
from examples.paper.elsewhere import table as rulings_table
from examples.paper.finding import Chart, Figure, Finding
from examples.paper.measure import Measured
from examples.paper.picture import THEMES, file_name, picture
from examples.paper.versions import versions

PICTURES: Final = "paper"
RULINGS: Final = "rulings.csv"
HEADER: Final = ("claim", "outcome", "what", "value", "low", "high", "unit", "against")
SIGNS: Final = {"confirmed": "✔", "refuted": "✘", "not identifiable": "?", "not measured": "–"}

_WORDS: Final = FOLDER / "words"


@dataclass(frozen=True)
class Told:
    """A claim and what became of it."""

    claim: Claim
    finding: Finding


def write(folder: Path, told: Sequence[Told], jobs: Mapping[str, Measured], requests: Mapping[str, Json]) -> None:
    """Writes paper.md, paper.csv, what was ruled on which device, and the pictures below `folder`; pictures that no
    finding has any more go."""
    pictures = folder / PICTURES
    pictures.mkdir(parents=True, exist_ok=True)
    wanted: dict[str, str] = {}
    for chart in (chart for one in told for chart in one.finding.charts):
        wanted |= {file_name(chart, theme): picture(chart, theme) for theme in THEMES}
    for name, text in wanted.items():
        _put(pictures / name, text)
    for path in pictures.glob("*.svg"):
        if path.name not in wanted:
            path.unlink()
    kept = merged(read(pictures / RULINGS), rulings(told, jobs, requests))
    _put(pictures / RULINGS, rulings_table(kept))
    _put(folder / "paper.csv", table(told))
    _put(folder / "paper.md", page(told, jobs, requests, kept))


def _put(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def table(told: Sequence[Told]) -> str:
    """All numbers; a claim without any has one row, with its outcome."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    for one in told:
        head = (one.claim.id, one.finding.outcome)
        for figure in one.finding.figures:
            ends = [f"{end:.6g}" for end in figure.ci] if figure.ci else ["", ""]
            writer.writerow((*head, figure.what, f"{figure.value:.6g}", *ends, figure.unit, figure.against))
        if not one.finding.figures:
            writer.writerow((*head, *[""] * (len(HEADER) - len(head))))
    return out.getvalue()


def rulings(told: Sequence[Told], jobs: Mapping[str, Measured], requests: Mapping[str, Json]) -> tuple[Ruling, ...]:
    """What was ruled now of the claims that are measured."""
    return tuple(ruling for one in told if (ruling := _ruling(one, jobs, requests)) is not None)


def rule_of(claim: Claim, requests: Mapping[str, Json]) -> str:
    """Fingerprint of what decides a claim."""
    return fingerprint(claim.rule, {job: requests[job] for job in claim.jobs})


def versions_of(claim: Claim, requests: Mapping[str, Json]) -> str:
    """Versions of the steps that make the models of a claim's jobs."""
    return made_by(versions([requests[job] for job in claim.jobs]))


def _ruling(one: Told, jobs: Mapping[str, Measured], requests: Mapping[str, Json]) -> Ruling | None:
    devices = {found.report.provenance.device for job in one.claim.jobs if (found := jobs[job]).report is not None}
    if one.finding.outcome == "not measured" or not devices:
        return None
    rule, steps = rule_of(one.claim, requests), versions_of(one.claim, requests)
    return Ruling("; ".join(sorted(devices)), one.claim.id, rule, steps, one.finding.outcome)


def page(
    told: Sequence[Told], jobs: Mapping[str, Measured], requests: Mapping[str, Json], kept: Sequence[Ruling] = ()
) -> str:
    """The page. `kept`: what was ruled on this and on other devices."""
    introduction, method, limits = (
        (_WORDS / f"{name}.md").read_text(encoding="utf-8") for name in ("introduction", "method", "limits")
    )
    parts = [
        introduction,
        _summary(told, jobs, requests, kept),
        method,
        *(_section(one, _ruling(one, jobs, requests)) for one in told),
        limits,
        _jobs(jobs, requests),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _summary(
    told: Sequence[Told], jobs: Mapping[str, Measured], requests: Mapping[str, Json], kept: Sequence[Ruling]
) -> str:
    counts = [
        f"{sum(one.finding.outcome == outcome for one in told)} {outcome}"
        for outcome in SIGNS
        if any(one.finding.outcome == outcome for one in told)
    ]
    rows = [
        f"| [{one.claim.title}](#{one.claim.id}) | {SIGNS[one.finding.outcome]} **{one.finding.outcome}** "
        f"| {_elsewhere(_ruling(one, jobs, requests), kept)} |".replace("|  |", "| |")
        for one in told
    ]
    heading = f"## {len(told)} claims: {', '.join(counts)}\n"
    return "\n".join([heading, "| claim | on this model | ruled otherwise |", "|---|---|---|", *rows])


def _elsewhere(now: Ruling | None, kept: Sequence[Ruling]) -> str:
    """What other measurements ruled of it, where that is something else."""
    found = {} if now is None else otherwise(kept, now)
    return "; ".join(
        f"{outcome} on {', '.join(devices)}{f' ({mark})' if mark else ''}" for (outcome, mark), devices in found.items()
    )


def _section(one: Told, now: Ruling | None) -> str:
    claim, finding = one.claim, one.finding
    lines = [
        f'<a id="{claim.id}"></a>\n',
        f"## {claim.title}\n",
        f"{SIGNS[finding.outcome]} **{finding.outcome.capitalize()}.** {_escaped(finding.sentence)}\n",
        *(_shown(chart) for chart in finding.charts),
        f"- **The paper**: {claim.source}",
        f"- **Claim**: {claim.statement}",
        f"- **Measured**: {claim.measured}",
        f"- **Rule**: {claim.rule}",
        f"- **What this model can show**: {claim.limits}",
        f"- **Jobs**: {', '.join(f'[{job}](../examples/paper/jobs/{job}.json)' for job in claim.jobs)}",
    ]
    if now is not None:
        lines.append(f"{VERSIONS}{now.versions}")
    if finding.figures:
        lines += ["", *_numbers(finding.figures)]
    return "\n".join(lines)


def _shown(chart: Chart) -> str:
    light, dark = (f"{PICTURES}/{file_name(chart, theme)}" for theme in THEMES)
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
    return ["| what | value | 95 % interval | unit | against |", "|---|---|---|---|---|", *rows]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _jobs(jobs: Mapping[str, Measured], requests: Mapping[str, Json]) -> str:
    rows = [
        "## The jobs\n",
        "| job | kind | scored tokens | documents | wall time |",
        "|---|---|---|---|---|",
    ]
    for name, found in jobs.items():
        kind = requests[name]["kind"]
        link = f"[{name}](../examples/paper/jobs/{name}.json)"
        if found.report is None:
            rows.append(f"| {link} | {kind} | not measured: {_escaped(found.why)} | | |")
        else:
            report = found.report
            took = fmt.duration(found.seconds)
            rows.append(f"| {link} | {kind} | {fmt.count(report.tokens)} | {report.documents} | {took} |")
    measured = [found for found in jobs.values() if found.report is not None]
    if measured:
        total = fmt.duration(sum(found.seconds for found in measured))
        rows += ["", f"{len(measured)} jobs, {total} together. {_where(measured[0].report)}"]
    return "\n".join(rows)


def _where(report: Report | None) -> str:
    if report is None:
        return ""
    found = report.provenance
    return (
        f"Measured by Hemostat {found.hemostat} with {found.engine} on {found.device}, {found.dtype}, weights "
        f"`{found.reference.weights_fingerprint[:16]}`. Wall times are of a machine that others used as well."
    )
