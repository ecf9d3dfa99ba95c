"""The three sets of documents of a calibrate job: drawn, checked to share nothing, and cut into windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.notice import Notice
from app.contracts.profile import DocumentSet, SetName
from app.kinds.calibrate.plan import no_fit_domain
from app.kinds.calibrate.request import CalibrateRequest
from workers.text.documents import TextDocument
from workers.text.overlap import unlike
from workers.text.partition import divide
from workers.text.windows import Corpus

Cut = Callable[[list[TextDocument]], Corpus]


@dataclass(frozen=True)
class Sets:
    """Windows of each set, and what a person should know of how they came about."""

    fit: Corpus
    choose: Corpus
    test: Corpus
    warnings: tuple[Notice, ...] = ()

    def named(self) -> tuple[tuple[SetName, Corpus], ...]:
        """In the order in which they are used."""
        return (("fit", self.fit), ("choose", self.choose), ("test", self.test))

    def fitted_domains(self) -> frozenset[str]:
        """Domains that the fit saw."""
        return frozenset(document.domain for document in self.fit.documents)

    def records(self) -> tuple[DocumentSet, ...]:
        """As profile and report hold them."""
        return tuple(_record(name, corpus) for name, corpus in self.named())


def draw(
    request: CalibrateRequest, documents: Sequence[TextDocument], tests: Sequence[TextDocument] | None, cut: Cut
) -> Sets:
    """The sets. `tests` are the documents of a text of their own, None if they are a share of `documents`.

    Intervals take documents for independent. So the sets to choose by and to test with leave out a document that equals
    one of an earlier set, or an earlier one of their own. Raises INVALID_REQUEST if a set has none left, and for a fit
    domain that the text does not have.
    """
    known = {document.domain for document in documents}
    unknown = next((domain for domain in request.fit_domains or () if domain not in known), None)
    if unknown is not None:
        raise no_fit_domain(unknown, known)
    whole = cut(list(documents))
    parts = divide(
        [document.domain for document in documents],
        [document.scored for document in whole.documents],
        budget=request.tokens,
        seed=request.seed,
        with_test=tests is None,
        fit_domains=request.fit_domains,
    )
    fit = [documents[index] for index in parts.fit]
    drawn = [documents[index] for index in parts.choose]
    choose, warnings = unlike(fit, drawn, name="choose")
    drawn = [documents[index] for index in parts.test] if tests is None else list(tests)
    test, more = unlike([*fit, *choose], drawn, name="test")
    warnings += more
    for name, found, pointer in (("fit", fit, "/text"), ("choose", choose, "/text"), ("test", test, "/test_text")):
        if not found:
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"no document is left for the {name} set: {len(documents)} documents of "
                f"{len({document.domain for document in documents})} domains are too few to divide",
                hint="give at least four documents per domain, or a test text",
                pointer=pointer,
            )
    return Sets(cut(fit), cut(choose), cut(test), tuple(warnings))


def _record(name: SetName, corpus: Corpus) -> DocumentSet:
    domains: dict[str, int] = {}
    for document in corpus.documents:
        domains[document.domain] = domains.get(document.domain, 0) + document.scored
    return DocumentSet(
        name=name,
        documents=len(corpus.documents),
        tokens=corpus.scored,
        domains=dict(sorted(domains.items())),
        fingerprint=corpus.fingerprint,
    )
