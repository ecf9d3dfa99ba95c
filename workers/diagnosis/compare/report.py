"""From everything that a comparison measured to its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.contracts.report import (
    GeneratedToolCalls,
    KernelTerm,
    Passage,
    TokenClasses,
    WorstToken,
)
from app.kinds.compare.report import CompareReport
from app.kinds.compare.request import CompareRequest
from app.models.packing import kept_packed
from workers.analysis.numerals import counted
from workers.distributions.token_values import Positions, TokenValues
from workers.engine.device import EngineIdentity
from workers.measuring import long_context
from workers.measuring.assemble import (
    envelope,
    left_out,
    of_making,
    packed_reference,
    provenance,
    repeated_documents,
    rounded,
)
from workers.measuring.floor import Floor
from workers.measuring.limitations import limits_of
from workers.measuring.positions import document_tokens
from workers.measuring.sides import Sides
from workers.measuring.summary import Summary, summarize
from workers.measuring.verdict import decide, sentence
from workers.measuring.worst import passage_indices, passages, worst_indices, worst_tokens
from workers.process.handler import JobContext
from workers.text.tokenization import load_tokenizer
from workers.text.windows import Corpus


@dataclass(frozen=True)
class Measured:
    """All that a compare job found out."""

    request: CompareRequest
    sides: Sides
    corpus: Corpus
    positions: Positions
    values: TokenValues
    floor: Floor
    token_classes: TokenClasses
    kernel_term: KernelTerm | None
    engine: EngineIdentity
    reference_from_store: bool
    resumed_windows: int
    started_at: float
    seconds: dict[str, float]
    reference_context: int | None = None  # where it is shorter than the windows
    tool_calls: GeneratedToolCalls | None = None
    allowed: Sequence[str] = ()  # warnings of what the request allows that flatters the candidate


def build_report(measured: Measured, context: JobContext) -> CompareReport:
    """The report: statistics, verdict, worst tokens, provenance."""
    request, corpus, values, positions = measured.request, measured.corpus, measured.values, measured.positions
    domains = [document.domain for document in corpus.documents]
    summary = summarize(
        values,
        positions,
        domains,
        window=request.window,
        floor_kl=measured.floor.kl,
        seed=request.seed,
        context=measured.reference_context,
    )
    decision = decide(summary.excess, request.thresholds, nonfinite=summary.nonfinite_positions, floor=summary.floor)
    worst, around = _worst(measured, stored=request.keeps_text)
    source = provenance(
        request,
        sides=measured.sides,
        corpus=corpus,
        engine=measured.engine,
        precision=request.precision,
        started_at=measured.started_at,
        seconds=measured.seconds,
        reference_from_store=measured.reference_from_store,
        resumed_windows=measured.resumed_windows,
        reference_context=measured.reference_context,
    )
    return CompareReport(
        verdict=sentence(
            decision,
            tokens=summary.tokens,
            nonfinite=summary.nonfinite_positions,
            floor=measured.floor.report.kl.mean,
            top1_agreement=summary.top1_agreement,
            perplexity_ratio=summary.perplexity.ratio,
        ),
        kernel_term=measured.kernel_term,
        token_classes=measured.token_classes,
        tool_calls=measured.tool_calls,
        worst_tokens=worst,
        passages=around,
        not_tested=limits_of(corpus, positions, request.text, tool_calls=measured.tool_calls is not None),
        warnings=tuple(_warnings(measured, summary)),
        **summary.blocks(),
        **envelope(request, context, decision, measured.floor, source),
    )


def _worst(measured: Measured, *, stored: bool) -> tuple[tuple[WorstToken, ...], tuple[Passage, ...]]:
    corpus, values, positions = measured.corpus, measured.values, measured.positions
    ids = [document.id for document in corpus.documents]
    domains = [document.domain for document in corpus.documents]
    usable = np.asarray(values.finite, dtype=np.bool_)
    tokenizer = load_tokenizer(measured.sides.reference.tokenizer)

    def decode(tokens: Sequence[int]) -> str:
        return str(tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))

    chosen = worst_indices(values.kl, positions.document, usable)
    rows = worst_tokens(values, positions, chosen, ids, domains, decode if stored else None)
    if not stored:
        return rows, ()
    centres = passage_indices(values.kl, positions, usable)
    tokens = document_tokens(corpus, {int(positions.document[index]) for index in centres})
    return rows, passages(values, positions, centres, tokens, ids, domains, decode, usable)


def _warnings(measured: Measured, summary: Summary) -> list[str]:
    found = []
    corpus, sides = measured.corpus, measured.sides
    if sides.reference.weights == sides.candidate.weights and not measured.request.candidate.recipe:
        found.append(
            "Both models have the same weights and the candidate has no recipe: this compares a model with itself. "
            "Give a recipe, or another model as candidate."
        )
    found += of_making(sides)
    found += rounded(sides, measured.engine.dtype)
    found += packed_reference(sides)
    if sides.packed and not sides.unpacked:
        formats = kept_packed(sides.candidate.info.quantization)
        found.append(
            f"The candidate is packed as {formats}, which is not unpacked here: what its kernels add to the difference "
            "(the kernel term) is not known."
        )
    if measured.reference_context is not None:
        found.append(long_context.warning(measured.reference_context))
    if summary.divergence.kl.clusters == "windows":
        found.append(
            f"Only {counted(summary.documents, 'document')}: intervals are clustered by windows, and are too narrow "
            "where windows of one document are alike. More documents make them sound."
        )
    found += repeated_documents(corpus)
    found += measured.allowed
    if corpus.left_out_tokens:
        were = "was" if corpus.left_out_tokens == 1 else "were"
        alone = counted(corpus.left_out_tokens, "last token")
        found.append(f"{alone} of documents stood alone in a window and {were} not scored.")
    return found + left_out(summary.nonfinite_positions)
