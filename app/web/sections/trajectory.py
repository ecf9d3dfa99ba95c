"""What happened to text that the models wrote themselves: where it parts, how KL grows, what the text looks like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from app.contracts.report import Mean
from app.contracts.trajectory_report import Cell as Entry
from app.contracts.trajectory_report import DecoderRun, Ratio, Sample, ShapedDistance, TextStatistics, TrajectoryReport
from app.web import describe
from app.web import format as fmt
from app.web.charts import Guide, axis, change_strip, interval_strip
from app.web.charts_matrix import MatrixCell, matrix_chart
from app.web.charts_survival import Curve, survival_chart, survival_strip
from app.web.heat import HeatScale
from app.web.scales import LinearScale, LogScale
from app.web.sections.numbers import Figure
from app.web.tables import Cell, Column, Table
from app.web.untrusted import visible, with_breaks

LETTERS: Final = "ABCD"
# Characters of a name that the legend of a chart has room for on a telephone.
_LEGEND: Final = 40
DECODERS: Final = {
    "greedy": "greedy",
    "beam": "beam",
    "diverse_beam": "diverse beam",
    "contrastive": "contrastive",
    "fsd": "FSD",
    "fsd_d": "FSD-d",
    "temperature": "temperature",
    "top_p": "top-p",
    "top_k": "top-k",
    "min_p": "min-p",
    "eta": "η",
    "typical": "typical",
    "mirostat": "mirostat",
}
CONCLUSIONS: Final = {
    "amplifies": "amplifies",
    "damps": "damps",
    "open": "not shown",
    "no_damage": "no damage",
}
# Steps of heat begin at these factors of amplification.
_FACTORS: Final = (1.05, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)


@dataclass(frozen=True)
class Matrix:
    """A chart of one measure over decoders and candidates."""

    caption: str
    unit: str
    chart: Markup


@dataclass(frozen=True)
class Text:
    """A sample as it is drawn."""

    heading: str
    prompt: str
    shared: str
    reference: str
    candidate: str


@dataclass(frozen=True)
class Trajectory:
    """Texts, charts and tables of the page."""

    heading: str
    sentence: str
    figures: tuple[Figure, ...]
    several: bool
    candidates: Table
    matrices: tuple[Matrix, ...]
    survival: Markup
    survival_caption: str
    parting: Table
    amplification: Table
    definitions: tuple[tuple[str, str], ...]
    along: Table
    along_caption: str
    edits: Table
    texts: Table
    changes: Table
    distances: Table
    distances_note: str
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
        candidates=_candidates(report),
        matrices=_matrices(report),
        survival=survival_chart(
            f"Prompts with the same text so far, {name}",
            [_curve(report, cell) for cell in first],
            report.most_tokens,
        ),
        survival_caption=f"How long the texts stay the same, {name}",
        parting=_parting(report),
        amplification=_amplification(report),
        definitions=tuple(
            (title, visible(report.definitions[key]))
            for key, title in (("kl", "KL factor"), ("tokens", "Token factor"), ("interval", "Interval"))
            if key in report.definitions
        ),
        along=_along(report, first),
        along_caption=f"Along the way, {name}",
        edits=_edits(report),
        texts=_texts(report),
        changes=_changes(report),
        distances=_distances(report),
        distances_note=(
            "Both next-token distributions after temperature and cut, on the reference’s texts by "
            f"{name}; from the stored hidden states, without another forward pass. KL is over the positions where it "
            "is finite; where the candidate cuts off a token that the reference keeps, it is infinite, and counted."
        ),
        samples=tuple(_sample(report, sample) for sample in report.samples),
        decoders=_decoders(report),
        note=note(report),
    )


def label(name: str) -> str:
    """A decoder's name for people."""
    return DECODERS.get(name, visible(name))


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
    return f"By single steps: on the reference’s own texts the candidate loses {kl} nats a token."


def first_cells(report: TrajectoryReport) -> list[Entry]:
    """The cells of the first decoder, one a candidate."""
    return [cell for cell in report.cells if cell.decoder == report.decoders[0].name]


def title_of(report: TrajectoryReport, candidate: int) -> str:
    """A candidate in words; with its letter where there are several."""
    told = visible(describe.model(report.candidates[candidate].model))
    return f"{LETTERS[candidate]}: {told}" if len(report.candidates) > 1 else told


def row_name(report: TrajectoryReport, cell: Entry) -> str:
    """Decoder, and the candidate's letter where there are several."""
    name = label(cell.decoder)
    return f"{name} · {LETTERS[cell.candidate]}" if len(report.candidates) > 1 else name


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
        f"{'in the chat template, ' if report.chat_template else ''}each written on for up to "
        f"{fmt.count(report.most_tokens)} tokens by every model with every decoder: "
        f"{fmt.count(report.generated_tokens)} tokens in all.{luck} Every text was then scored by both models, "
        f"exactly, over the full vocabulary. Intervals are 95 %, clustered by prompt."
    )


def factor(ratio: Ratio) -> fmt.Estimate:
    """A ratio and its interval."""
    return fmt.estimate(ratio.value, ratio.ci)


def median_of(cell: Entry) -> tuple[str, str]:
    """The median first differing token, and its interval; texts that have not parted are beyond the end."""
    length = cell.survival[-1].tokens if cell.survival else 0
    found = cell.first_divergence

    def told(value: int | None) -> str:
        return f"> {fmt.count(length)}" if value is None else fmt.count(value)

    low, high = found.median_ci
    return told(found.median), f"[{told(low)}, {told(high)}]"


def _figures(report: TrajectoryReport, cell: Entry) -> tuple[Figure, ...]:
    name = label(cell.decoder)
    grown = factor(cell.amplification.kl)
    tokens = factor(cell.amplification.tokens)
    median, median_ci = median_of(cell)
    parted = cell.first_divergence.diverged
    own, other = (fmt.estimate(mean.mean, mean.ci) for mean in (cell.kl_candidate_text, cell.kl_reference_text))
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


def _candidates(report: TrajectoryReport) -> Table:
    return Table(
        caption="The candidates, on the reference’s texts",
        columns=(
            Column("", "name"),
            Column("Changed by", "text"),
            Column("Severity", "text"),
            Column("Excess KL, nats"),
        ),
        rows=tuple(
            (
                Cell(LETTERS[index]),
                Cell(visible(describe.model(run.model))),
                Cell(run.severity),
                _mean(run.excess_kl),
            )
            for index, run in enumerate(report.candidates)
        ),
    )


def _matrices(report: TrajectoryReport) -> tuple[Matrix, ...]:
    largest = max((cell.kl_candidate_text.mean or 0.0 for cell in report.cells), default=0.0)
    scale = HeatScale.up_to(largest)

    def own(cell: Entry) -> MatrixCell:
        text = fmt.estimate(cell.kl_candidate_text.mean, cell.kl_candidate_text.ci)
        return MatrixCell(
            fmt.number(cell.kl_candidate_text.mean, 2), f"{text} nats", scale.step(cell.kl_candidate_text.mean)
        )

    def parted(cell: Entry) -> MatrixCell:
        median, ci = median_of(cell)
        shared = cell.first_divergence.shared_prefix.mean
        left = 1.0 if shared is None or not report.most_tokens else 1 - shared / report.most_tokens
        return MatrixCell(median, f"first different token {median} {ci}", min(7, max(0, round(7 * left))))

    def grown(cell: Entry) -> MatrixCell:
        ratio = cell.amplification.kl
        step = sum((ratio.value or 0.0) >= edge for edge in _FACTORS)
        return MatrixCell(
            fmt.NONE if ratio.value is None else f"× {fmt.number(ratio.value, 2)}",
            f"{factor(ratio)}, {CONCLUSIONS[cell.amplification.conclusion]}",
            step,
        )

    measures: tuple[tuple[str, str, Callable[[Entry], MatrixCell]], ...] = (
        ("KL on the candidate’s own text", "nats a token", own),
        ("First different token", "median", parted),
        ("KL factor", "own text over reference’s", grown),
    )
    return tuple(Matrix(caption, unit, _matrix(report, caption, of)) for caption, unit, of in measures)


def _matrix(report: TrajectoryReport, caption: str, of: Callable[[Entry], MatrixCell]) -> Markup:
    by_place = {(cell.decoder, cell.candidate): cell for cell in report.cells}
    empty = MatrixCell(fmt.NONE, "not measured", 0)
    names = [run.name for run in report.decoders]
    return matrix_chart(
        f"{caption}: decoder by candidate",
        [label(name) for name in names],
        list(LETTERS[: len(report.candidates)]),
        [
            [
                of(by_place[name, index]) if (name, index) in by_place else empty
                for index in range(len(report.candidates))
            ]
            for name in names
        ],
    )


def _curve(report: TrajectoryReport, cell: Entry) -> Curve:
    name = title_of(report, cell.candidate)
    return Curve(
        name if len(name) <= _LEGEND else f"{name[: _LEGEND - 1]}…",
        tuple((point.tokens, point.share, *point.ci) for point in cell.survival),
        cell.candidate,
    )


def _parting(report: TrajectoryReport) -> Table:
    rows = []
    for cell in report.cells:
        median, ci = median_of(cell)
        found = cell.first_divergence
        name = row_name(report, cell)
        rows.append(
            (
                Cell(name),
                Cell(chart=survival_strip(f"{name}: texts still the same", _curve(report, cell), report.most_tokens)),
                Cell(median, ci, strong=True),
                _mean(found.shared_prefix),
                _mean(found.diverged, percent=True),
                _mean(found.hazard, percent=True),
            )
        )
    return Table(
        caption="Where the texts part",
        columns=(
            Column("Decoder", "name"),
            Column("Same so far", "chart"),
            Column("First different token, median"),
            Column("Shared prefix, tokens"),
            Column("Parted, %"),
            Column("Chance a step, %"),
        ),
        rows=tuple(rows),
        axis=axis(LinearScale(0.0, float(max(1, report.most_tokens))), "generated tokens, linear axis"),
    )


def _amplification(report: TrajectoryReport) -> Table:
    ratios = [cell.amplification.kl for cell in report.cells]
    values = [value for ratio in ratios for value in (ratio.value, *(ratio.ci or ())) if value]
    scale = LogScale.around(1.0, *values)
    rows = []
    for cell in report.cells:
        found, name = cell.amplification, row_name(report, cell)
        kl, tokens = factor(found.kl), factor(found.tokens)
        rows.append(
            (
                Cell(name),
                _mean(cell.kl_reference_text),
                _mean(cell.kl_candidate_text),
                Cell(kl.value, kl.interval or "no interval", strong=True),
                Cell(chart=interval_strip(f"{name}: {kl}", found.kl.value, found.kl.ci, scale, [Guide(1.0, "base")])),
                Cell(CONCLUSIONS[found.conclusion]),
                Cell(tokens.value, tokens.interval or "no interval"),
            )
        )
    return Table(
        caption="Amplification by decoder",
        columns=(
            Column("Decoder", "name"),
            Column("KL on the reference’s text, nats"),
            Column("KL on its own text, nats"),
            Column("KL factor"),
            Column("Factor with 95 % interval", "chart"),
            Column("Decoding", "text"),
            Column("Token factor"),
        ),
        rows=tuple(rows),
        axis=axis(scale, "KL factor, logarithmic axis; the line is 1"),
    )


def _along(report: TrajectoryReport, cells: Sequence[Entry]) -> Table:
    values = [
        mean.mean
        for cell in cells
        for band in cell.along
        for mean in (band.kl_reference_text, band.kl_candidate_text)
        if mean.mean
    ]
    scale = LogScale.around(*(values or [1.0]))
    rows = []
    for cell in cells:
        for band in cell.along:
            place = f"{fmt.count(band.first)}\u2060–\u2060{fmt.count(band.last)}"  # does not break
            name = f"{LETTERS[cell.candidate]} · {place}" if len(cells) > 1 else place
            rows.append(
                (
                    Cell(name),
                    _mean(band.kl_reference_text),
                    _mean(band.kl_candidate_text),
                    Cell(
                        chart=change_strip(
                            f"{name}: from {fmt.number(band.kl_reference_text.mean)} to "
                            f"{fmt.number(band.kl_candidate_text.mean)} nats",
                            band.kl_reference_text.mean,
                            band.kl_candidate_text.mean,
                            scale,
                        )
                    ),
                    _mean(band.disagreement, percent=True),
                    _mean(band.entropy_reference),
                    _mean(band.entropy_candidate),
                )
            )
    return Table(
        caption="By position in the generated text",
        columns=(
            Column("Tokens", "name"),
            Column("KL on the reference’s text, nats"),
            Column("KL on its own text, nats"),
            Column("From the one to the other", "chart"),
            Column("Tokens that differ, %"),
            Column("Entropy of p on its text, nats"),
            Column("Entropy of q on its text, nats"),
        ),
        rows=tuple(rows),
        axis=axis(scale, "KL in nats a token, logarithmic axis; ring: reference’s text, dot: its own"),
    )


def _edits(report: TrajectoryReport) -> Table:
    lengths = sorted({edit.tokens for cell in report.cells for edit in cell.edit_distance})
    rows = []
    for cell in report.cells:
        by_length = {edit.tokens: edit.distance for edit in cell.edit_distance}
        rows.append(
            (
                Cell(row_name(report, cell)),
                *(
                    _mean(by_length[length], percent=True) if length in by_length else Cell(fmt.NONE)
                    for length in lengths
                ),
            )
        )
    return Table(
        caption="Token edit distance, % of the length, after so many tokens",
        columns=(Column("Decoder", "name"), *(Column(fmt.count(length)) for length in lengths)),
        rows=tuple(rows),
    )


def _texts(report: TrajectoryReport) -> Table:
    rows = []
    for of in report.reference_texts:
        rows.append((Cell(f"{label(of.decoder)}, reference"), *_statistics(of.text)))
        rows += [
            (Cell(row_name(report, cell)), *_statistics(cell.text))
            for cell in report.cells
            if cell.decoder == of.decoder
        ]
    return Table(
        caption="What the texts look like",
        columns=(
            Column("Decoder", "name"),
            Column("Length, tokens"),
            Column("Ended itself, %"),
            Column("Repeated 4-grams, %"),
            Column("Distinct tokens, %"),
            Column("Own entropy, nats"),
            Column("Surprise under p, nats"),
        ),
        rows=tuple(rows),
    )


def _statistics(text: TextStatistics) -> tuple[Cell, ...]:
    return (
        _mean(text.length),
        _mean(text.ended, percent=True),
        _mean(_fourth(text.repetition), percent=True),
        _mean(text.distinct, percent=True),
        _mean(text.entropy),
        _mean(text.reference_surprise),
    )


def _changes(report: TrajectoryReport) -> Table:
    rows = []
    for cell in report.cells:
        change = cell.change
        rows.append(
            (
                Cell(row_name(report, cell)),
                _mean(change.length, sign=True),
                _mean(_fourth(change.repetition), percent=True, sign=True),
                _mean(change.distinct, percent=True, sign=True),
                _mean(change.entropy, sign=True),
                _mean(change.reference_surprise, sign=True),
            )
        )
    return Table(
        caption="Candidate minus reference, paired by prompt",
        columns=(
            Column("Decoder", "name"),
            Column("Length, tokens"),
            Column("Repeated 4-grams, points"),
            Column("Distinct tokens, points"),
            Column("Own entropy, nats"),
            Column("Surprise under p, nats"),
        ),
        rows=tuple(rows),
    )


def _fourth(repetition: dict[str, Mean]) -> Mean:
    return repetition.get("4", Mean(mean=None, ci=None))


# The parameter that a decoder is known by: its value stands behind the name.
_MAIN: Final = {
    "temperature": "temperature",
    "top_p": "p",
    "top_k": "k",
    "min_p": "p",
    "eta": "epsilon",
    "typical": "mass",
    "beam": "beams",
    "diverse_beam": "beams",
    "mirostat": "tau",
}


def shaping_name(distance: ShapedDistance | DecoderRun) -> str:
    """`top-p 0.95`: the name and the parameters that are not their neutral value."""
    name = distance.shaping if isinstance(distance, ShapedDistance) else distance.name
    told = [
        f"{'' if key == _MAIN.get(name) else key.replace('_', ' ') + ' '}"
        f"{fmt.short(value) if isinstance(value, float) else value}"
        for key, value in distance.parameters.items()
        if key == _MAIN.get(name) or not (key == "temperature" and value == 1.0)
    ]
    return visible(f"{label(name)} {', '.join(told)}".strip())


def _distances(report: TrajectoryReport) -> Table:
    several = len(report.candidates) > 1
    values = [value for one in report.distances for value in (one.tv.mean, *(one.tv.ci or ())) if value is not None]
    scale = LinearScale(0.0, max([*values, 1e-6]) * 1.05)
    rows = []
    for one in report.distances:
        name = shaping_name(one) + (f" · {LETTERS[one.candidate]}" if several else "")
        rows.append(
            (
                Cell(name),
                _mean(one.kl),
                _mean(one.infinite, percent=True),
                _mean(one.tv),
                Cell(
                    chart=interval_strip(
                        f"{name}: TV {fmt.estimate(one.tv.mean, one.tv.ci)}", one.tv.mean, one.tv.ci, scale
                    )
                ),
                _mean(one.top1, percent=True),
            )
        )
    return Table(
        caption="Distances after a decoder’s cut",
        columns=(
            Column("After", "name"),
            Column("KL(p‖q), nats"),
            Column("Infinite, %"),
            Column("TV"),
            Column("TV with 95 % interval", "chart"),
            Column("Top-1 agreement, %"),
        ),
        rows=tuple(rows),
        axis=axis(scale, "total variation, linear axis"),
    )


def _sample(report: TrajectoryReport, sample: Sample) -> Text:
    where = (
        "the same text" if sample.first_divergence is None else f"parts at token {fmt.count(sample.first_divergence)}"
    )
    parts = [label(sample.decoder), f"{sample.document} · {sample.domain}", where]
    if len(report.candidates) > 1:
        parts.insert(1, LETTERS[sample.candidate])
    return Text(
        heading=visible(" · ".join(parts)),
        prompt=with_breaks(sample.prompt),
        shared=with_breaks(sample.shared),
        reference=with_breaks(sample.reference),
        candidate=with_breaks(sample.candidate_text),
    )


def _decoders(report: TrajectoryReport) -> Table:
    luck = {"none": "nothing is drawn", "common": "one number for all models"}
    return Table(
        caption="The decoders",
        columns=(Column("Decoder", "name"), Column("Run by", "text"), Column("Chance, at the same step", "text")),
        rows=tuple(
            (
                Cell(shaping_name(run)),
                Cell("vLLM" if run.engine == "vllm" else "our loop over transformers"),
                Cell(luck[run.random]),
            )
            for run in report.decoders
        ),
    )


def _mean(mean: Mean, *, percent: bool = False, sign: bool = False) -> Cell:
    text = fmt.estimate(mean.mean, mean.ci, percent=percent)
    plus = "+" if sign and mean.mean is not None and mean.mean > 0 else ""
    return Cell(plus + text.value, text.interval or "")
