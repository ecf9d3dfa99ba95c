"""Whether two reports may be compared: what was scored, how, and by what must agree, else the difference of their
numbers is not that of their candidates.

A value that is one number over tokens depends on which tokens, cut into which windows, run in which arithmetic by which
engine, against which reference. Each of these moves KL by more than an 8-bit quantization does.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Final

from app.contracts.diff_report import Mismatch
from app.contracts.report import Provenance
from app.kinds.compare.report import CompareReport

_RULE: Final = "scored positions"
_Part = Callable[[Provenance], object]
PARTS: Final[Mapping[str, _Part]] = {
    "tokenizer": lambda source: source.protocol.tokenizer_fingerprint,
    "vocabulary": lambda source: source.protocol.vocabulary,
    "text": lambda source: source.protocol.text_fingerprint,
    "window": lambda source: source.protocol.window,
    "stride": lambda source: source.protocol.stride,
    "BOS": lambda source: source.protocol.bos,
    "chat template": lambda source: source.protocol.chat_template,
    _RULE: lambda source: source.protocol.scored,
    "dtype": lambda source: source.dtype,
    "engine": lambda source: source.engine,
    "execution": lambda source: source.execution,
    "device": lambda source: source.device,
    "arithmetic of the divergence": lambda source: source.precision,
    "reference": lambda source: source.reference.weights_fingerprint,
}
# Fingerprints are given by so many characters.
_SHOWN: Final = 16
_NUMBER: Final = re.compile(r"\d+")


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
            if what == _RULE:
                sides = _unlike(first.provenance, second.provenance)
            else:
                sizes = (_size(first), _size(second)) if what == "text" else ("", "")
                sides = (sizes[0] + _told(left), sizes[1] + _told(right))
            if sides is not None:
                found.append(Mismatch(reports=(one, other), what=what, one=sides[0], other=sides[1]))
    return found


def _unlike(one: Provenance, other: Provenance) -> tuple[str, str] | None:
    """What differs between two rules by which positions are scored: sentences, which hold the window and the stride.
    None where they differ in these two alone, which have parts of their own."""
    left, right = _clauses(one), _clauses(other)
    kept: tuple[list[str], list[str]] = ([], [])
    same = difflib.SequenceMatcher(None, _without_sizes(left, one), _without_sizes(right, other), autojunk=False)
    for tag, begin, end, from_, to in same.get_opcodes():
        if tag != "equal":
            kept[0].extend(left[begin:end])
            kept[1].extend(right[from_:to])
    if not any(kept):
        return None
    return (", ".join(kept[0]) or "nothing more", ", ".join(kept[1]) or "nothing more")


def _clauses(source: Provenance) -> list[str]:
    return re.split(r"[,;] ", source.protocol.scored)


def _without_sizes(clauses: Sequence[str], source: Provenance) -> list[str]:
    sizes = {str(source.protocol.window), str(source.protocol.stride)}
    return [_NUMBER.sub(lambda found: "#" if found[0] in sizes else found[0], clause) for clause in clauses]


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


def _told(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    looks_hashed = len(text) >= 32 and all(character in "0123456789abcdef" for character in text)
    return f"{text[:_SHOWN]}…" if looks_hashed else text
