"""The report of a trajectory job, from texts and the values at their positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from app.contracts.decoding import Decoder, Sampler, TemperatureSampling, runs_in_vllm
from app.contracts.report import Blocks, Limitation, LimitationCode
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
from workers.analysis.numerals import counted
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
_OF_SCORED_TEXT: Final[tuple[LimitationCode, ...]] = (
    "free_running_generation",
    "sampling_settings",
    "conversations",
    "plain_text",
    "turns_of_users",
    "text_by_people",
    "text_of_the_model",
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
    allowed: tuple[str, ...] = ()


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


def not_tested(found: Found) -> tuple[Limitation, ...]:
    """What the report does not speak of. What is reported elsewhere of scored text does not hold here: none was."""
    listed = limits_of(found.base, positions_of(found.base), found.request.text)
    longest = found.request.tokens
    return (
        *without(listed, *_OF_SCORED_TEXT),
        *_form(found.prompts),
        Limitation(
            code="long_texts",
            text=f"Texts longer than {longest} tokens, and other decoders or parameters than those listed.",
            numbers={"tokens": longest},
        ),
        Limitation(code="text_by_people", text="Text written by people: the two models wrote the scored text."),
    )


def _form(prompts: Sequence[Prompt]) -> tuple[Limitation, ...]:
    """Which of plain text and conversations no prompt was; nothing if some were either."""
    conversations = sum(prompt.conversation for prompt in prompts)
    if 0 < conversations < len(prompts):
        return ()
    if conversations:
        return (Limitation(code="plain_text", text="Plain text: every prompt is in the chat template."),)
    text = "Conversations: every prompt is plain text, without a chat template."
    return (Limitation(code="conversations", text=text),)


def _of_making(found: Found) -> Iterator[str]:
    """What the steps of each candidate warned of, by its number where there are several."""
    for number, sides in enumerate(found.sides, 1):
        yield from of_making(sides, "the candidate" if len(found.sides) == 1 else f"candidate {number}")


def _warnings(found: Found, cells: Sequence[Cell]) -> list[str]:
    listed = [*_of_making(found), *found.allowed]
    count = len(found.prompts)
    if count < found.request.prompts:
        prompts = counted(count, "prompt")
        listed.append(f"The text has {counted(count, 'document')}: {prompts} instead of {found.request.prompts}.")
    again = count - len({prompt.tokens for prompt in found.prompts})
    if again:
        listed.append(
            f"{again} of {count} prompts repeat{'s' * (again == 1)} an earlier one. Intervals take prompts for "
            "independent, and are too narrow where some are not: leave the copies out, or take longer prompts."
        )
    if count < FEWEST_CLUSTERS:
        these = "this prompt" if count == 1 else "these prompts"
        listed.append(f"Only {counted(count, 'prompt')}: intervals speak of {these} alone.")
    nonfinite = sum(one.nonfinite_positions for one in cells)
    if nonfinite:
        listed.append(
            "Some positions of generated texts had non-finite logits and are left out of every mean: "
            f"{nonfinite} in all cells together, those of a text that several share counted in each."
        )
    listed += [
        f"{sides.candidate.alias} runs on other kernels than the reference ({sides.candidate.info.scheme}): a part of "
        "its KL is theirs; `hemostat compare` distinguishes it."
        for sides in found.sides
        if sides.packed
    ]
    forms = [
        form for one in found.sides for form in (*packed_reference(one), *rounded(one, found.conditions.engine.dtype))
    ]
    listed += dict.fromkeys(forms)  # the reference is one and the same
    ended = [texts for texts in found.written[0].texts.values() if np.mean([len(text.tokens) for text in texts]) < 8]
    if ended:
        listed.append("Texts of the reference are shorter than eight tokens on average: little can be seen in them.")
    return listed
