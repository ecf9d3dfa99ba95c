"""Whether two reports may be compared: what was scored, how, and by what must agree, else the difference of their
numbers is not that of their candidates.

A value that is one number over tokens depends on which tokens, cut into which windows, run in which arithmetic by which
engine, against which reference. Each of these moves KL by more than an 8-bit quantization does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Final

from app.contracts.diff_report import Mismatch
from app.contracts.report import Provenance
from app.kinds.compare.report import CompareReport

_NUMBER: Final = re.compile(r"\d+")
_Part = Callable[[Provenance], object]
PARTS: Final[Mapping[str, _Part]] = {
    "tokenizer": lambda source: source.protocol.tokenizer_fingerprint,
    "vocabulary": lambda source: source.protocol.vocabulary,
    "text": lambda source: source.protocol.text_fingerprint,
    "window": lambda source: source.protocol.window,
    "stride": lambda source: source.protocol.stride,
    "BOS": lambda source: source.protocol.bos,
    "chat template": lambda source: source.protocol.chat_template,
    "scored positions": lambda source: _NUMBER.sub(
        # Window and stride have parts of their own.
        lambda found: "#" if int(found[0]) in {source.protocol.window, source.protocol.stride} else found[0],
        source.protocol.scored,
    ),
    "dtype": lambda source: source.dtype,
    "engine": lambda source: source.engine,
    "execution": lambda source: source.execution,
    "device": lambda source: source.device,
    "arithmetic of the divergence": lambda source: source.precision,
    "reference": lambda source: source.reference.weights_fingerprint,
}
# Fingerprints are given by so many characters.
_SHOWN: Final = 16


def mismatches(reports: Mapping[str, CompareReport]) -> list[Mismatch]:
    """What any two of the reports, named by their letters, do not share. Each part is reported once: against the first
    report that has it otherwise."""
    found: list[Mismatch] = []
    for what, part in PARTS.items():
        for (one, first), (other, second) in combinations(reports.items(), 2):
            left, right = part(first.provenance), part(second.provenance)
            told = {mismatch.reports[1] for mismatch in found if mismatch.what == what}
            if left == right or other in told:
                continue
            sizes = (_size(first), _size(second)) if what == "text" else ("", "")
            sides = (sizes[0] + _shown(left), sizes[1] + _shown(right))
            found.append(Mismatch(reports=(one, other), what=what, one=sides[0], other=sides[1]))
    return found


def sentence(mismatch: Mismatch) -> str:
    """`engine: a vllm 0.32.0, b vllm 0.33.0`."""
    one, other = mismatch.reports
    return f"{mismatch.what}: {one} {mismatch.one}, {other} {mismatch.other}"


def _size(report: CompareReport) -> str:
    """What people know a text by, before its fingerprint."""
    return (
        f"{report.documents:,} document{'' if report.documents == 1 else 's'} with {report.tokens:,} scored "
        f"token{'' if report.tokens == 1 else 's'}, fingerprint "
    )


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    looks_hashed = len(text) >= 32 and all(character in "0123456789abcdef" for character in text)
    return f"{text[:_SHOWN]}…" if looks_hashed else text
