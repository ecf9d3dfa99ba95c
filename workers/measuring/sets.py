"""The documents of a mitigate job: those to choose by, and the test; none of them is looked at by a treatment."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, cast

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.notice import Notice
from app.contracts.profile import DocumentSet, SetName
from workers.analysis.numerals import counted
from workers.distributions.token_values import Positions
from workers.measuring.calibration_text import looked_at
from workers.measuring.positions import positions_of
from workers.text.documents import TextDocument
from workers.text.overlap import document_overlap, unlike
from workers.text.partition import halve
from workers.text.windows import Corpus

CHOOSE_SHARE: Final = 0.4
# Of the documents to choose by, what cheap trials and the search for the modification are measured on.
CHEAP_SHARE: Final = 0.4
FEWEST_CHEAP: Final = 3


@dataclass(frozen=True)
class Part:
    """Windows to be scored: which of the corpus, and where their positions stand among all of the corpus'."""

    corpus: Corpus
    windows: tuple[int, ...]
    where: Positions
    documents: int

    @classmethod
    def of(cls, corpus: Corpus, documents: int | None = None) -> Part:
        """The windows of the first so many documents; None: all."""
        every = positions_of(corpus)
        if documents is None:
            return cls(corpus, tuple(range(len(corpus.windows))), every, len(corpus.documents))
        windows = tuple(index for index, window in enumerate(corpus.windows) if window.document < documents)
        return cls(corpus, windows, every.select(every.document < documents), documents)


@dataclass(frozen=True)
class Sets:
    """`fit` for treatments to look at; `choose` to choose by, of which cheap trials take `cheap`; `test`, which is read
    once."""

    fit: Corpus
    choose: Corpus
    test: Corpus
    cheap: Part
    full: Part
    warnings: tuple[Notice, ...] = ()

    def records(self) -> tuple[DocumentSet, ...]:
        """As the report holds them."""
        return tuple(
            _record(name, corpus) for name, corpus in (("fit", self.fit), ("choose", self.choose), ("test", self.test))
        )


def draw(
    documents: Sequence[TextDocument],
    tests: Sequence[TextDocument] | None,
    fitted: Sequence[TextDocument],
    cut: Callable[[list[TextDocument]], Corpus],
    *,
    seed: int,
    allow_overlap: bool,
) -> Sets:
    """The sets. `tests` are the documents of a text of their own; None: a share of `documents`. `fitted` are those that
    treatments look at.

    A document that repeats an earlier one of its set is left out, with a warning, and so is one of the test that is
    also chosen by. Raises CALIBRATION_OVERLAP if `fitted` holds one of the others and that is not allowed,
    INVALID_REQUEST if a set has no document.
    """
    shared: set[str] = set()
    for others, pointer in ((documents, "/text"), (tests or (), "/test_text")):
        same = {second for _, second in document_overlap(fitted, others)}
        if same and not allow_overlap:
            raise _overlap(same, pointer)
        shared |= {f"{pointer} {name}" for name in same}
    warnings = looked_at(len(shared), "treatments")
    if tests is None:
        first, second = halve([document.domain for document in documents], share=CHOOSE_SHARE, seed=seed)
        choose, test = [documents[index] for index in first], [documents[index] for index in second]
    else:
        order = halve([document.domain for document in documents], share=1.0, seed=seed)
        choose, test = [documents[index] for part in order for index in part], list(tests)
    choose, again = unlike((), choose, name="choose")
    test, more = unlike(choose, test, name="test")
    warnings += [*again, *more]
    for name, found, pointer in (("choose", choose, "/text"), ("test", test, "/test_text")):
        if not found:
            domains = counted(len({document.domain for document in documents}), "domain")
            are = "is" if len(documents) == 1 else "are"
            why = f"{counted(len(documents), 'document')} of {domains} {are} too few to be divided"
            if tests is not None:
                why = "every document of test_text is in text, too"
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"no document is left for the {name} set: {why}",
                hint="give at least two documents per domain, or a `test_text` that shares no document with `text`",
                pointer=pointer,
            )
    corpus = cut(choose)
    few = min(len(choose), max(FEWEST_CHEAP, round(CHEAP_SHARE * len(choose))))
    return Sets(cut(list(fitted)), corpus, cut(test), Part.of(corpus, few), Part.of(corpus), tuple(warnings))


def _overlap(ids: Collection[str], pointer: str) -> HemostatError:
    return HemostatError(
        ErrorCode.CALIBRATION_OVERLAP,
        f"{counted(len(ids), 'document')} that treatments look at {'is' if len(ids) == 1 else 'are'} also scored, "
        f"such as {', '.join(map(repr, sorted(ids)[:3]))}",
        hint="give one of the two other documents; `allow_overlap` measures anyway, and the result looks too good",
        pointer=pointer,
    )


def _record(name: str, corpus: Corpus) -> DocumentSet:
    domains: dict[str, int] = {}
    for document in corpus.documents:
        domains[document.domain] = domains.get(document.domain, 0) + document.scored
    return DocumentSet(
        name=cast(SetName, name),
        documents=len(corpus.documents),
        tokens=corpus.scored,
        domains=dict(sorted(domains.items())),
        fingerprint=corpus.fingerprint,
    )
