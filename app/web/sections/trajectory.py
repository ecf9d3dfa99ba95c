"""What happened to text that the models wrote themselves: where it parts, how KL grows, what the text looks like."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from app.kinds.trajectory.report import Cell as Entry
from app.kinds.trajectory.report import TrajectoryReport
from app.reports.blocks import Figure, Table
from app.web import format as fmt
from app.web.charts_survival import survival_chart
from app.web.sections.trajectory_amplification import along, amplification, amplification_note
from app.web.sections.trajectory_candidates import candidates, domains
from app.web.sections.trajectory_classes import Kinds, distances_by_kind, kinds
from app.web.sections.trajectory_decoders import decoders, distances
from app.web.sections.trajectory_matrices import Matrix, matrices
from app.web.sections.trajectory_parting import curve, edits, parting
from app.web.sections.trajectory_texts import Text, changes, shown, texts
from app.web.sections.trajectory_words import LETTERS, factor, first_cells, kl_means, label, median_of, row_name
from app.web.untrusted import visible


@dataclass(frozen=True)
class Trajectory:
    """Texts, charts and tables of the page."""

    heading: str
    sentence: str
    figures: tuple[Figure, ...]
    several: bool
    candidates: Table
    domains: Table | None
    matrices: tuple[Matrix, ...]
    survival: Markup
    survival_caption: str
    parting: Table
    amplification: Table
    amplification_note: str
    definitions: tuple[tuple[str, str], ...]
    along: Table
    along_caption: str
    edits: Table
    texts: Table
    changes: Table
    distances: Table
    distances_note: str
    distances_by_kind: tuple[Table, ...]
    kinds: Kinds
    samples: tuple[Text, ...]
    decoders: Table
    note: str


def trajectory(report: TrajectoryReport) -> Trajectory:
    """The view of a report."""
    first = first_cells(report)
    name = label(report.decoders[0].name)
    return Trajectory(
        heading=heading(report),
        sentence=visible(report.verdict),
        figures=_figures(report, first[0]),
        several=len(report.candidates) > 1,
        candidates=candidates(report),
        domains=domains(report),
        matrices=matrices(report),
        survival=survival_chart(
            f"Prompts with the same text so far, {name}",
            [curve(report, cell) for cell in first],
            report.most_tokens,
        ),
        survival_caption=f"How long the texts stay the same, {name}",
        parting=parting(report),
        amplification=amplification(report),
        amplification_note=amplification_note(report),
        definitions=tuple(
            (title, visible(report.definitions[key]))
            for key, title in (("kl", "KL factor"), ("tokens", "Token factor"), ("interval", "Interval"))
            if key in report.definitions
        ),
        along=along(report, first),
        along_caption=f"Along the way, {name}",
        edits=edits(report),
        texts=texts(report),
        changes=changes(report),
        distances=distances(report),
        distances_note=(
            "Both next-token distributions after temperature and cut, on the reference’s texts by "
            f"{name}; from the stored hidden states, without another forward pass. KL is over the positions where it "
            "is finite; where the candidate cuts off a token that the reference keeps, it is infinite, and counted. "
            "Temperature cuts nothing off."
        ),
        distances_by_kind=distances_by_kind(report),
        kinds=kinds(report),
        samples=tuple(shown(report, sample) for sample in report.samples),
        decoders=decoders(report),
        note=note(report),
    )


def heading(report: TrajectoryReport) -> str:
    """What the first decoder's amplification says."""
    conclusion = first_cells(report)[0].amplification.conclusion
    return {
        "amplifies": "Decoding amplifies the damage",
        "damps": "Decoding damps the damage",
        "open": "Amplification not shown",
        "no_damage": "The same text",
    }[conclusion]


def left(report: TrajectoryReport) -> str:
    """The sentence of the verdict's section: the damage by single steps."""
    kl = fmt.estimate(report.divergence.kl.mean, report.divergence.kl.ci)
    who = f"candidate {LETTERS[0]}" if len(report.candidates) > 1 else "the candidate"
    return f"By single steps: on the reference’s own texts {who} loses {kl} nats a token."


def note(report: TrajectoryReport) -> str:
    """What was generated."""
    shared = {run.random for run in report.decoders}
    luck = (
        " Where chance decides, all models meet the same random numbers at the same step of the same prompt."
        if shared - {"none"}
        else ""
    )
    return (
        f"{fmt.count(report.prompts)} prompts of up to {fmt.count(report.prompt_tokens)} tokens, "
        f"{_template(report)}each written on for up to "
        f"{fmt.count(report.most_tokens)} tokens by every model with every decoder: "
        f"{fmt.count(report.generated_tokens)} tokens in all.{luck} Every text was then scored by both models, "
        f"exactly, over the full vocabulary. Intervals are 95 %, clustered by prompt.{_of_whom(report)}"
    )


def _of_whom(report: TrajectoryReport) -> str:
    """Which of several candidates the sentences are about."""
    if len(report.candidates) < 2:
        return ""
    return (
        f" Headline, figures and verdict are of candidate {LETTERS[0]} with {label(report.decoders[0].name)}; the "
        "tables hold every candidate."
    )


def _template(report: TrajectoryReport) -> str:
    if not report.chat_template:
        return ""
    every = report.request is not None and report.request.get("chat") is True
    return f"{'' if every else 'conversations '}in the chat template, "


def _figures(report: TrajectoryReport, cell: Entry) -> tuple[Figure, ...]:
    name = row_name(report, cell)
    grown = factor(cell.amplification.kl)
    tokens = factor(cell.amplification.tokens)
    median, median_ci = median_of(cell)
    parted = cell.first_divergence.diverged
    other, own = (fmt.estimate(mean.mean, mean.ci) for mean in kl_means(cell))
    return (
        Figure(
            "KL factor",
            grown.value,
            f"× running free, {name}",
            grown.interval or "no interval",
            "KL on the candidate’s own text over KL on the reference’s, same positions",
        ),
        Figure(
            "First different token",
            median,
            "median over prompts",
            median_ci,
            f"{fmt.estimate(parted.mean, parted.ci, percent=True)} % of the texts part",
        ),
        Figure(
            "KL on its own text",
            own.value,
            "nats a token",
            own.interval or "no interval",
            f"{other} on the reference’s text",
        ),
        Figure(
            "Token factor",
            tokens.value,
            "× more different tokens",
            tokens.interval or "no interval",
            "different tokens over single-step disagreements",
        ),
    )
