"""From everything that a comparison measured to its report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.contracts.report import (
    GeneratedToolCalls,
    Passage,
    WorstToken,
)
from app.kinds.compare.report import CompareReport
from app.kinds.compare.request import CompareRequest
from workers.measuring.classify import Classified
from workers.measuring.pair import Measured
from workers.measuring.positions import document_tokens
from workers.measuring.token_classes import token_classes
from workers.measuring.worst import passage_indices, passages, worst_indices, worst_tokens
from workers.text.tokenization import load_tokenizer


def build_report(
    request: CompareRequest, measured: Measured, classes: Classified, tool_calls: GeneratedToolCalls | None
) -> CompareReport:
    """The report: statistics, verdict, worst tokens, provenance."""
    worst, around = _worst(measured, stored=request.keeps_text)
    return measured.reported(
        CompareReport,
        token_classes=token_classes(
            measured.values,
            measured.positions,
            classes,
            seed=request.seed,
            check_cancelled=measured.context.check_cancelled,
        ),
        tool_calls=tool_calls,
        worst_tokens=worst,
        passages=around,
        not_tested=measured.limits(tool_calls=tool_calls is not None),
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
