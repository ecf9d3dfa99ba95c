"""The report of a compare job, kind `compare` of schema `hemostat.report/1`."""

from typing import Literal

from app.contracts.report import (
    Agreement,
    BandedSlice,
    Blocks,
    ComparedReport,
    DeltaP,
    GeneratedToolCalls,
    Histogram,
    KernelTerm,
    Passage,
    TokenClasses,
    WorstToken,
)


class CompareReport(Blocks, ComparedReport):
    """What a compare job found."""

    kind: Literal["compare"] = "compare"
    kernel_term: KernelTerm | None = None
    delta_p: DeltaP
    agreement: Agreement
    by_position: tuple[BandedSlice, ...]
    by_confidence: tuple[BandedSlice, ...]
    token_classes: TokenClasses
    tool_calls: GeneratedToolCalls | None = None
    histogram: Histogram
    worst_tokens: tuple[WorstToken, ...]
    passages: tuple[Passage, ...] = ()
