"""The report of a compare job, kind `compare` of schema `hemostat.report/1`."""

from typing import Literal

from app.contracts.report import (
    Agreement,
    BandedSlice,
    DeltaP,
    Divergence,
    DomainReport,
    Entropy,
    GeneratedToolCalls,
    Histogram,
    KernelTerm,
    Mean,
    Passage,
    Perplexity,
    Report,
    TokenClasses,
    WorstToken,
)


class CompareReport(Report):
    """What a compare job found."""

    kind: Literal["compare"] = "compare"
    divergence: Divergence
    kernel_term: KernelTerm | None = None
    delta_p: DeltaP
    perplexity: Perplexity
    top1_agreement: Mean
    agreement: Agreement
    entropy: Entropy
    domains: dict[str, DomainReport]
    by_position: tuple[BandedSlice, ...]
    by_confidence: tuple[BandedSlice, ...]
    token_classes: TokenClasses | None = None
    tool_calls: GeneratedToolCalls | None = None
    histogram: Histogram
    worst_tokens: tuple[WorstToken, ...]
    passages: tuple[Passage, ...] = ()
