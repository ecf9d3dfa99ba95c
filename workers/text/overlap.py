"""Whether two texts share documents.

What is fitted on a text looks better on that text than it is. Documents are compared by hash after removing what does
not change what they say to a reader (Unicode form, case, white space).
"""

import hashlib
import unicodedata
from collections.abc import Iterable

from app.contracts.notice import Notice
from app.contracts.notices import Warned
from workers.text.documents import TextDocument


def document_overlap(first: Iterable[TextDocument], second: Iterable[TextDocument]) -> list[tuple[str, str]]:
    """Pairs of ids, of the first and of the second text, that are the same document. Of exact-token documents the
    tokens are compared."""
    known: dict[bytes, list[str]] = {}
    for document in first:
        known.setdefault(_hash(document), []).append(document.id)
    return [(other, document.id) for document in second for other in known.get(_hash(document), ())]


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
    earlier: Iterable[TextDocument], later: Iterable[TextDocument], *, name: str
) -> tuple[list[TextDocument], list[Notice]]:
    """(documents of `later` that stand neither in `earlier` nor before themselves in `later`, what is to be reported of
    those that were left out). `name` is that of the set `later`.

    Intervals take documents for independent, and a proof takes them for unseen.
    """
    listed = list(later)
    same = {other for _, other in document_overlap(earlier, listed)}
    kept = [document for document in listed if document.id not in same]
    again = set(repeated(kept))
    warnings = []
    if same:
        warnings.append(Warned.USED_BEFORE(documents=len(same), set=name))
    if again:
        warnings.append(Warned.REPEATED_IN_SET(documents=len(again), set=name))
    return [document for document in kept if document.id not in again], warnings


def normalized(document: TextDocument) -> str:
    """The document's text: NFKC, case folded, runs of white space as one space, turns joined by one."""
    return " ".join(unicodedata.normalize("NFKC", " ".join(document.strings())).casefold().split())


def _hash(document: TextDocument) -> bytes:
    if document.tokens is not None:
        return hashlib.sha256(b"tokens" + document.tokens.astype("<i4").tobytes()).digest()
    return hashlib.sha256(b"text" + normalized(document).encode("utf-8")).digest()
