"""Where the numbers come from, and how to get them again."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pydantic import ValidationError

from app.contracts.report import ModelProvenance, Report
from app.jobs.record import tested_name, text_name
from app.kinds.registry import KINDS, requests
from app.kinds.surface.report import SurfaceReport
from app.kinds.surface.words import knobs_of
from app.reports import describe
from app.reports import format as fmt
from app.reports.blocks import Cell, Column, Fact, Table
from app.reports.charts.marks import share_bar
from app.reports.reproduce import Reproduction, reproduction
from app.reports.untrusted import visible
from app.web import listing


@dataclass(frozen=True)
class Group:
    """Facts under a heading."""

    heading: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Origin:
    """Provenance as facts and tables."""

    candidate: str
    reference: str
    scored: str
    head: tuple[Fact, ...]
    models: Table
    groups: tuple[Group, ...]
    phases: Table
    recipe: str
    reproduction: Reproduction


def origin(report: Report) -> Origin:
    """The provenance of a report."""
    source = report.provenance
    return Origin(
        candidate=_candidate(report),
        reference=visible(describe.model(source.reference)),
        scored=_scored(report),
        head=(
            Fact("Text", scored_text(report)),
            Fact("Engine", visible(f"{source.engine} · {source.device} · {source.dtype}")),
            Fact("Finished", fmt.moment(source.finished_at)),
            Fact("Job", visible(report.job), code=True),
        ),
        models=_models(report),
        groups=(_protocol(report), _run(report), _versions(report)),
        phases=_phases(source.seconds),
        recipe=_recipe(source.candidate),
        reproduction=reproduction(report),
    )


def _candidate(report: Report) -> str:
    """What was measured: of a surface both knobs with their ranges, as lists of jobs have it; its provenance is that of
    the chosen setting."""
    provenance = report.provenance.candidate
    if not isinstance(report, SurfaceReport):
        return visible(describe.model(provenance))
    try:
        asked = requests().validate_python(report.request)
    except ValidationError:
        return f"{visible(provenance.model)} · {knobs_of(report)}"
    return listing.candidate(asked.model_dump(mode="json"))


def _recipe(model: ModelProvenance) -> str:
    """The steps as JSON, one a line."""
    steps = ",\n".join(f"  {json.dumps(step)}" for step in model.recipe)
    return f"[\n{steps}\n]" if steps else "[]"


def _scored(report: Report) -> str:
    return (
        f"{_of(report.tokens, 'scored token')}, {_of(report.documents, 'document')}, "
        f"{_of(report.windows, 'window' if reads_windows(report) else 'text')} of {_window(report)}"
    )


def scored_text(report: Report) -> str:
    """What was scored, named as lists of jobs name it; its source alone where the report does not hold the request, or
    not the text that came with it."""
    try:
        asked = requests().validate_python(report.request)
    except ValidationError:
        return visible(report.provenance.protocol.text_source)
    return listing.text({"text": text_name(asked.text), "test_text": tested_name(asked)})


def reads_windows(report: Report) -> bool:
    """Whether a model reads windows of the text, not whole texts with their prompts."""
    return KINDS[report.kind].request.reads_windows


def _window(report: Report) -> str:
    """How many tokens a model reads at once."""
    behind = "" if reads_windows(report) else ", the prompt included"
    return f"up to {fmt.count(report.provenance.protocol.window)} tokens{behind}"


def _of(number: int, noun: str) -> str:
    return f"{fmt.count(number)} {noun}" + ("" if number == 1 else "s")


def _models(report: Report) -> Table:
    reference, candidate = report.provenance.reference, report.provenance.candidate

    def row(name: str, of: tuple[str, str]) -> tuple[Cell, ...]:
        return (Cell(name), *(Cell(visible(value)) for value in of))

    def both(value: object) -> tuple[str, str]:
        pair = [getattr(model, str(value)) for model in (reference, candidate)]
        return ("" if pair[0] is None else str(pair[0]), "" if pair[1] is None else str(pair[1]))

    return Table(
        caption="The two models",
        style="stack models",
        columns=(Column("", "name"), Column("Reference (p)", "code"), Column("Candidate (q)", "code")),
        rows=(
            row("Alias", both("model")),
            row(
                "Changed by",
                (describe.recipe(reference.recipe) or "nothing", describe.recipe(candidate.recipe) or "nothing"),
            ),
            row("Weights, SHA-256", both("weights_fingerprint")),
            row("Recipe fingerprint", tuple(value or fmt.NONE for value in both("recipe_fingerprint"))),  # type: ignore[arg-type]
            row("Scheme", both("scheme")),
            row("Bits per weight", (_bits(reference), _bits(candidate))),
            row("Size", (_size(reference), _size(candidate))),
            row("Zeros", (_zeros(reference), _zeros(candidate))),
            row("Reconstruction error", (_error(reference), _error(candidate))),
        ),
    )


def _bits(model: ModelProvenance) -> str:
    return fmt.NONE if model.bits_per_weight is None else fmt.number(model.bits_per_weight, 4)


def _size(model: ModelProvenance) -> str:
    if model.bytes is None:
        return fmt.NONE
    told = f"{fmt.size(model.bytes)} ({fmt.count(model.bytes)} bytes)"
    if model.file_bytes is None or abs(model.file_bytes - model.bytes) < model.bytes / 100:  # but for their headers
        return told
    return f"{told}; served from weight files of {fmt.size(model.file_bytes)} ({fmt.count(model.file_bytes)} bytes)"


def _zeros(model: ModelProvenance) -> str:
    if model.sparsity is None:
        return fmt.NONE
    told = f"{fmt.percent(model.sparsity)} % of the changed weights"
    return told if model.nominal_sparsity is None else f"{told}; {fmt.percent(model.nominal_sparsity)} % asked for"


def _error(model: ModelProvenance) -> str:
    error = model.reconstruction_error
    return fmt.NONE if error is None else f"{fmt.number(error)} of the changed weights’ norm"


def _protocol(report: Report) -> Group:
    protocol = report.provenance.protocol
    return Group(
        "Protocol",
        (
            Fact("Window, stride", f"{fmt.count(protocol.window)}, {fmt.count(protocol.stride)} tokens")
            if reads_windows(report)
            else Fact("Texts", _window(report)),
            Fact("Scored", visible(protocol.scored)),
            Fact("BOS before each window", "yes" if protocol.bos else "no"),
            Fact("Chat template", "applied" if protocol.chat_template else "not used"),
            Fact("Vocabulary", fmt.count(protocol.vocabulary)),
            Fact("Text", scored_text(report)),
            Fact("Text fingerprint", visible(protocol.text_fingerprint), code=True),
            Fact("Tokenizer fingerprint", visible(protocol.tokenizer_fingerprint), code=True),
        ),
    )


def _run(report: Report) -> Group:
    source = report.provenance
    return Group(
        "Run",
        (
            Fact("Engine", visible(source.engine)),
            Fact("Execution", visible(source.execution)),
            Fact("Device", visible(source.device)),
            Fact("Forward passes in", visible(source.dtype)),
            Fact("Divergence in", visible(source.precision)),
            Fact("Head", visible(source.head)),
            Fact("Intervals", visible(source.intervals)),
            Fact("Seed", str(source.seed)),
            Fact("Started", fmt.moment(source.started_at)),
            Fact("Finished", fmt.moment(source.finished_at)),
            Fact("Reference", "from the store, not run again" if source.reference_from_store else "run for this job"),
            Fact("Resumed windows", _resumed(source.resumed_windows)),
        ),
    )


def _resumed(windows: int) -> str:
    return f"{fmt.count(windows)} scored by an attempt before" if windows else "none"


def _versions(report: Report) -> Group:
    source = report.provenance
    facts = [Fact("hemostat", visible(source.hemostat), code=True)]
    facts += [
        Fact(visible(name), visible(version), code=True)
        for name, version in sorted(source.versions.items())
        if name != "hemostat"
    ]
    return Group("Versions", tuple(facts))


def _phases(seconds: dict[str, float]) -> Table:
    total = sum(seconds.values())
    return Table(
        caption=f"Time, {fmt.duration(total)} in all" if seconds else "Time",
        style="phases",
        columns=(Column("Phase", "name"), Column("Time"), Column("Share", "chart")),
        rows=tuple(
            (
                Cell(visible(name).replace("_", " ")),
                Cell(fmt.duration(spent)),
                Cell(chart=share_bar(f"{visible(name)}: {fmt.duration(spent)}", spent / total if total else 0.0)),
            )
            for name, spent in seconds.items()
        ),
    )
