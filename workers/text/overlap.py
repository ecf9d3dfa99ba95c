"""Whether two texts share documents or passages.

What is fitted on a text looks better on that text than it is. Documents are compared by hash after removing what does
not change what they say to a reader (Unicode form, case, white space); passages by every run of `size` characters.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from workers.text.documents import TextDocument

SHINGLE = 50


@dataclass(frozen=True)
class Overlap:
    """Pairs of ids (of the first, of the second text) that are the same document, and the size of both texts."""

    shared: tuple[tuple[str, str], ...]
    first: int
    second: int

    @property
    def share(self) -> float:
        """Share of the second text's documents that stand in the first."""
        return len({second for _, second in self.shared}) / self.second if self.second else 0.0


def document_overlap(first: Iterable[TextDocument], second: Iterable[TextDocument]) -> Overlap:
    """Documents that stand in both texts. Of exact-token documents the tokens are compared."""
    known: dict[bytes, list[str]] = {}
    count_first = 0
    for document in first:
        count_first += 1
        known.setdefault(_hash(document), []).append(document.id)
    shared: list[tuple[str, str]] = []
    count_second = 0
    for document in second:
        count_second += 1
        shared += [(other, document.id) for other in known.get(_hash(document), ())]
    return Overlap(tuple(shared), count_first, count_second)


def repeated(documents: Iterable[TextDocument]) -> tuple[str, ...]:
    """Ids of documents that are the same as an earlier one."""
    seen: set[bytes] = set()
    found: list[str] = []
    for document in documents:
        digest = _hash(document)
        if digest in seen:
            found.append(document.id)
        seen.add(digest)
    return tuple(found)


def unlike(
    earlier: Iterable[TextDocument], later: Iterable[TextDocument], *, what: str, used: str
) -> tuple[list[TextDocument], list[str]]:
    """(documents of `later` that stand neither in `earlier` nor before themselves in `later`, what is to be reported of
    those that were left out).

    Intervals take documents for independent, and a proof takes them for unseen. `what` names those of `later`, as in
    `of the test`; `used` what `earlier` was for, as in `was used before the test`.
    """
    listed = list(later)
    same = {other for _, other in document_overlap(earlier, listed).shared}
    kept = [document for document in listed if document.id not in same]
    again = set(repeated(kept))
    warnings = []
    if same:
        count = len(same)
        warnings.append(
            f"{count} document{'' if count == 1 else 's'} {what} {'is' if count == 1 else 'are'} the same as one that "
            f"{used}, and {'was' if count == 1 else 'were'} left out."
        )
    if again:
        count = len(again)
        warnings.append(
            f"{count} document{'' if count == 1 else 's'} {what} {'repeats' if count == 1 else 'repeat'} an earlier "
            f"one of the same set, and {'was' if count == 1 else 'were'} left out."
        )
    return [document for document in kept if document.id not in again], warnings


def passage_overlap(
    first: Iterable[TextDocument], second: Iterable[TextDocument], *, size: int = SHINGLE
) -> tuple[tuple[str, str], ...]:
    """Pairs of ids of documents that share a run of `size` characters (normalized), each pair once.

    Memory is some hundred bytes a character of the first text: meant for corpora of a megabyte or so.
    """
    known: dict[int, str] = {}
    for document in first:
        for shingle in _shingles(document, size):
            known.setdefault(hash(shingle), document.id)
    found: dict[tuple[str, str], None] = {}
    for document in second:
        for shingle in _shingles(document, size):
            if (other := known.get(hash(shingle))) is not None:
                found[other, document.id] = None
    return tuple(found)


def normalized(document: TextDocument) -> str:
    """The document's text: NFKC, case folded, runs of white space as one space, turns joined by one."""
    return " ".join(unicodedata.normalize("NFKC", " ".join(document.strings())).casefold().split())


def _shingles(document: TextDocument, size: int) -> Iterator[str]:
    text = normalized(document)
    return (text[start : start + size] for start in range(len(text) - size + 1))


def _hash(document: TextDocument) -> bytes:
    if document.tokens is not None:
        return hashlib.sha256(b"tokens" + document.tokens.astype("<i4").tobytes()).digest()
    return hashlib.sha256(b"text" + normalized(document).encode("utf-8")).digest()
