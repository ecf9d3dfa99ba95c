"""The report of a trajectory job, from texts and the values at their positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from app.contracts.decoding import Decoder, Sampler, TemperatureSampling, runs_in_vllm
from app.contracts.notice import Notice, Notices
from app.contracts.notices import Untested
from app.contracts.report import Blocks
from app.kinds.trajectory.notices import TrajectoryNotice
from app.kinds.trajectory.report import (
    CandidateRun,
    Cell,
    DecoderRun,
    ReferenceTexts,
    Sample,
    ShapedDistance,
    TrajectoryReport,
    TrajectoryTokenClasses,
)
from app.kinds.trajectory.request import TrajectoryRequest
from app.kinds.trajectory.words import sentence
from workers.decoding.distances import ShapedDistances, summarized
from workers.decoding.model import Continuation
from workers.diagnosis.trajectory.by_class import classes_of, token_classes
from workers.diagnosis.trajectory.cells import Path, cell, text_statistics
from workers.diagnosis.trajectory.classes import classify_path
from workers.diagnosis.trajectory.generating import Written
from workers.diagnosis.trajectory.means import share_of
from workers.diagnosis.trajectory.pairs import first_difference
from workers.diagnosis.trajectory.prompts import Prompt
from workers.diagnosis.trajectory.scoring import TextPool, spans
from workers.distributions.intervals import FEWEST_CLUSTERS
from workers.distributions.token_values import TokenValues
from workers.measuring.assemble import Conditions, envelope, of_making, packed_reference, provenance, rounded
from workers.measuring.floor import Floor
from workers.measuring.limitations import limits_of, without
from workers.measuring.positions import positions_of
from workers.measuring.sides import Sides
from workers.measuring.summary import Summary, as_mean, summarize
from workers.measuring.verdict import decide
from workers.process.handler import JobContext
from workers.text.tokenization import load_tokenizer
from workers.text.windows import Corpus

# Prompts whose texts are shown, of all candidates together, and tokens of a text that are.
SAMPLES: Final = 8
SHOWN_TOKENS: Final = 256
_OF_SCORED_TEXT: Final[tuple[Notices, ...]] = (
    Untested.FREE_RUNNING_GENERATION,
    Untested.SAMPLING_SETTINGS,
    Untested.CONVERSATIONS,
    Untested.PLAIN_TEXT,
    Untested.TURNS_OF_USERS,
    Untested.TEXT_BY_PEOPLE,
    Untested.TEXT_OF_THE_MODEL,
)


@dataclass(frozen=True)
class Measured:
    """A candidate against the reference: `values` over `corpus`, whose windows are the texts `numbers` of the pool;
    `shapes` over the base texts, one a shaping."""

    numbers: list[int]
    corpus: Corpus
    values: TokenValues
    shapes: list[ShapedDistances]

    def by_text(self) -> dict[int, TokenValues]:
        """Values of each text, by its number."""
        return {
            number: self.values.select(np.arange(span.start, span.stop))
            for number, span in zip(self.numbers, spans(self.corpus), strict=True)
        }


@dataclass(frozen=True)
class Found:
    """All that a trajectory job found out. `base` holds the reference's texts by the first decoder; `written` the
    reference's texts and then each candidate's; `allowed` warns of what the request allows that flatters a recipe."""

    request: TrajectoryRequest
    prompts: list[Prompt]
    sides: list[Sides]
    written: list[Written]
    pool: TextPool
    base: Corpus
    measured: list[Measured]
    floor: Floor
    conditions: Conditions
    allowed: tuple[Notice, ...] = ()


def build_report(found: Found, context: JobContext) -> TrajectoryReport:
    """Statistics of every cell, the verdict on the reference's texts, samples."""
    request, seed = found.request, found.request.seed
    summaries = [_summary(found, index, context) for index in range(len(found.measured))]
    decisions = [
        decide(one.excess, request.thresholds, nonfinite=one.nonfinite_positions, floor=one.floor) for one in summaries
    ]
    sources = [provenance(request, found.conditions, sides=sides, corpus=found.base) for sides in found.sides]
    cells, references = _cells(found, context)
    first = summaries[0]
    report = TrajectoryReport(
        verdict="",
        prompts=len(found.prompts),
        prompt_tokens=max(len(prompt.tokens) for prompt in found.prompts),
        most_tokens=request.tokens,
        chat_template=any(prompt.conversation for prompt in found.prompts),
        decoders=tuple(_decoder(one) for one in request.decoders),
        candidates=tuple(
            CandidateRun(
                model=source.candidate,
                severity=decision.severity,
                excess_kl=decision.excess_kl,
                blocks=Blocks(**summary.common()),
            )
            for source, decision, summary in zip(sources, decisions, summaries, strict=True)
        ),
        cells=cells,
        reference_texts=references,
        token_classes=_token_classes(found, context),
        distances=distances(found, seed, check_cancelled=context.check_cancelled),
        samples=_samples(found) if request.keeps_text else (),
        generated_tokens=sum(
            len(text.tokens) for model in found.written for texts in model.texts.values() for text in texts
        ),
        not_tested=not_tested(found),
        warnings=tuple(_warnings(found, cells)),
        **first.of_report(),
        **envelope(request, context, decisions[0], found.floor, sources[0]),
    )
    return report.model_copy(update={"verdict": sentence(report)})


def base_values(found: Found, candidate: int) -> TokenValues:
    """A candidate's values on the base texts, in the order of the base corpus."""
    by_text = found.measured[candidate].by_text()
    return TokenValues.concat([by_text[number] for number in range(len(found.base.windows))])


def _summary(found: Found, candidate: int, context: JobContext) -> Summary:
    return summarize(
        base_values(found, candidate),
        positions_of(found.base),
        [document.domain for document in found.base.documents],
        window=found.base.window,
        floor_kl=found.floor.kl,
        seed=found.request.seed,
        check_cancelled=context.check_cancelled,
    )


def _decoder(decoder: Decoder) -> DecoderRun:
    parameters = decoder.model_dump(mode="json")
    name = str(parameters.pop("name"))
    return DecoderRun(
        name=name,
        parameters=parameters,
        engine="vllm" if runs_in_vllm(decoder) else "loop",
        random="common" if isinstance(decoder, Sampler) else "none",
    )


def _path(found: Found, writer: int, decoder: str, values: dict[int, TokenValues]) -> Path:
    """The texts of `found.written[writer]` by a decoder, with a candidate's `values` of each text."""
    texts: Sequence[Continuation] = found.written[writer].texts[decoder]
    of_texts = [values[found.pool.add(number, text.tokens)] for number, text in enumerate(texts)]
    return Path(texts, of_texts, "candidate" if writer else "reference")


def _token_classes(found: Found, context: JobContext) -> TrajectoryTokenClasses:
    """The texts of the first decoder by kind of token."""
    first, reference = found.request.decoders[0].name, found.sides[0].reference
    classified = [
        classify_path(
            found.prompts,
            written.texts[first],
            load_tokenizer(reference.tokenizer),
            vocabulary=reference.info.vocabulary,
            check_cancelled=context.check_cancelled,
        )
        for written in found.written
    ]
    by_candidate = [
        classes_of(
            _path(found, 0, first, values),
            _path(found, writer, first, values),
            (classified[0], classified[writer]),
            seed=found.request.seed,
            check_cancelled=context.check_cancelled,
        )
        for writer, values in enumerate((measured.by_text() for measured in found.measured), 1)
    ]
    return token_classes(classified, by_candidate)


def _cells(found: Found, context: JobContext) -> tuple[tuple[Cell, ...], tuple[ReferenceTexts, ...]]:
    by_text = [measured.by_text() for measured in found.measured]
    most, seed = found.request.tokens, found.request.seed
    cells: list[Cell] = []
    references: list[ReferenceTexts] = []
    total = len(found.request.decoders) * len(found.measured)
    for name in (decoder.name for decoder in found.request.decoders):
        for index, values in enumerate(by_text):
            context.check_cancelled()
            context.progress("statistics", len(cells), total)
            ours, theirs = (_path(found, writer, name, values) for writer in (0, index + 1))
            if index == 0:
                references.append(ReferenceTexts(decoder=name, text=text_statistics(ours, most=most, seed=seed)))
            cells.append(cell(name, index, ours, theirs, most=most, seed=seed, check_cancelled=context.check_cancelled))
    return tuple(cells), tuple(references)


def distances(
    found: Found,
    seed: int,
    *,
    check_cancelled: Callable[[], None] = lambda: None,
) -> tuple[ShapedDistance, ...]:
    """After each shaping, of every candidate; none if no position is finite. `check_cancelled` may raise."""
    where = positions_of(found.base)
    listed = []
    for index, measured in enumerate(found.measured):
        for shaping, at_positions in zip(found.request.shapings, measured.shapes, strict=True):
            check_cancelled()
            summary = summarized(at_positions, where.document, where.window, seed=seed)
            if summary is None:
                continue
            parameters = shaping.model_dump(mode="json")
            uncut = isinstance(shaping, TemperatureSampling)  # every token is left: what is cut off is 0 for sure
            listed.append(
                ShapedDistance(
                    candidate=index,
                    shaping=str(parameters.pop("name")),
                    parameters=parameters,
                    kl=as_mean(summary.kl),
                    infinite=share_of(summary.kl_infinite, sure=uncut),
                    tv=as_mean(summary.tv),
                    top1=share_of(summary.top1),
                )
            )
    return tuple(listed)


def _samples(found: Found) -> tuple[Sample, ...]:
    tokenizer = load_tokenizer(found.sides[0].reference.tokenizer)
    decoder = found.request.decoders[0].name
    count = max(1, SAMPLES // len(found.measured))

    def decode(tokens: Sequence[int]) -> str:
        return str(tokenizer.decode(list(tokens)[:SHOWN_TOKENS], clean_up_tokenization_spaces=False))

    samples = []
    for index in range(len(found.measured)):
        for number, prompt in enumerate(found.prompts[:count]):
            ours = found.written[0].texts[decoder][number].tokens
            theirs = found.written[index + 1].texts[decoder][number].tokens
            first = first_difference(ours, theirs)
            shared = len(ours) if first is None else first - 1
            samples.append(
                Sample(
                    document=prompt.document,
                    domain=prompt.domain,
                    decoder=decoder,
                    candidate=index,
                    prompt=decode(prompt.tokens[-SHOWN_TOKENS:]),
                    shared=decode(ours[:shared]),
                    reference=decode(ours[shared:]),
                    candidate_text=decode(theirs[shared:]),
                    first_divergence=first,
                )
            )
    return tuple(samples)


def not_tested(found: Found) -> tuple[Notice, ...]:
    """What the report does not speak of. What is reported elsewhere of scored text does not hold here: none was."""
    listed = limits_of(found.base, positions_of(found.base), found.request.text)
    return (
        *without(listed, *_OF_SCORED_TEXT),
        *_form(found.prompts),
        TrajectoryNotice.LONG_TEXTS(tokens=found.request.tokens),
        TrajectoryNotice.TEXT_BY_PEOPLE(),
    )


def _form(prompts: Sequence[Prompt]) -> tuple[Notice, ...]:
    """Which of plain text and conversations no prompt was; nothing if some were either."""
    conversations = sum(prompt.conversation for prompt in prompts)
    if 0 < conversations < len(prompts):
        return ()
    return (TrajectoryNotice.PLAIN_TEXT() if conversations else TrajectoryNotice.CONVERSATIONS(),)


def _of_making(found: Found) -> Iterator[Notice]:
    """What the steps of each candidate warned of, by its number where there are several."""
    for number, sides in enumerate(found.sides, 1):
        yield from of_making(sides, "the candidate" if len(found.sides) == 1 else f"candidate {number}")


def _warnings(found: Found, cells: Sequence[Cell]) -> list[Notice]:
    listed = [*_of_making(found), *found.allowed]
    count = len(found.prompts)
    if count < found.request.prompts:
        asked = found.request.prompts
        listed.append(TrajectoryNotice.FEWER_PROMPTS(documents=count, prompts=count, asked=asked))
    again = count - len({prompt.tokens for prompt in found.prompts})
    if again:
        listed.append(TrajectoryNotice.REPEATED_PROMPTS(repeated=again, prompts=count))
    if count < FEWEST_CLUSTERS:
        listed.append(TrajectoryNotice.FEW_PROMPTS(prompts=count))
    nonfinite = sum(one.nonfinite_positions for one in cells)
    if nonfinite:
        listed.append(TrajectoryNotice.NONFINITE_POSITIONS(positions=nonfinite))
    listed += [
        TrajectoryNotice.OTHER_KERNELS(model=sides.candidate.alias, scheme=sides.candidate.info.scheme)
        for sides in found.sides
        if sides.packed
    ]
    forms = [
        form for one in found.sides for form in (*packed_reference(one), *rounded(one, found.conditions.engine.dtype))
    ]
    listed += dict.fromkeys(forms)  # the reference is one and the same
    ended = [texts for texts in found.written[0].texts.values() if np.mean([len(text.tokens) for text in texts]) < 8]
    if ended:
        listed.append(TrajectoryNotice.SHORT_TEXTS())
    return listed
