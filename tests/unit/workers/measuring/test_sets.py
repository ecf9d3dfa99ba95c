"""Which documents are chosen by, and which are the test."""

from collections.abc import Callable
from pathlib import Path

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.notices import Warned
from workers.measuring.sets import Sets, draw
from workers.text.documents import TextDocument
from workers.text.tokenization import load_tokenizer
from workers.text.windows import make_windows

Draw = Callable[..., Sets]


def document(name: str, domain: str = "prose") -> TextDocument:
    return TextDocument(name, domain, text=f"the quick fox {name} jumps over the lazy dog {name}")


DOCUMENTS = [document(f"{domain}{number}", domain) for domain in ("code", "prose") for number in range(10)]
FITTED = [document(f"fit{number}") for number in range(4)]


@pytest.fixture
def drawn(tiny: Callable[..., Path]) -> Draw:
    tokenizer = load_tokenizer(tiny())

    def made(
        documents: list[TextDocument] = DOCUMENTS,
        tests: list[TextDocument] | None = None,
        fitted: list[TextDocument] = FITTED,
        *,
        seed: int = 0,
        allow_overlap: bool = False,
    ) -> Sets:
        return draw(
            documents,
            tests,
            fitted,
            lambda chosen: make_windows(chosen, tokenizer, 16),
            seed=seed,
            allow_overlap=allow_overlap,
        )

    return made


def ids(corpus: object) -> set[str]:
    return {one.id for one in corpus.documents}  # type: ignore[attr-defined]


def test_two_fifths_of_each_domain_are_chosen_by_and_the_rest_is_the_test(drawn: Draw) -> None:
    sets = drawn()
    choose, test = ids(sets.choose), ids(sets.test)
    assert choose | test == {one.id for one in DOCUMENTS}
    assert not choose & test
    assert sum(name.startswith("code") for name in choose) == sum(name.startswith("prose") for name in choose) == 4
    assert ids(sets.fit) == {one.id for one in FITTED}
    assert drawn(seed=1).choose.fingerprint != sets.choose.fingerprint
    assert drawn().test.fingerprint == sets.test.fingerprint


def test_cheap_trials_see_a_part_of_what_is_chosen_by_with_every_domain_in_it(drawn: Draw) -> None:
    sets = drawn()
    assert sets.cheap.corpus is sets.full.corpus is sets.choose
    assert sets.cheap.documents == 3
    assert set(sets.cheap.windows) < set(sets.full.windows)
    assert {one.domain for one in sets.choose.documents[: sets.cheap.documents]} == {"code", "prose"}
    assert len(sets.cheap.where.document) < len(sets.full.where.document) == sets.choose.scored


def test_with_a_test_text_all_of_the_other_is_chosen_by(drawn: Draw) -> None:
    tests = [document(f"test{number}") for number in range(3)]
    sets = drawn(tests=[*tests, TextDocument("copy", "prose", text=DOCUMENTS[4].text)])
    assert ids(sets.choose) == {one.id for one in DOCUMENTS}
    assert ids(sets.test) == {one.id for one in tests}
    assert sets.warnings == (Warned.USED_BEFORE(documents=1, set="test"),)


@pytest.mark.parametrize("where", ["/text", "/test_text"])
def test_what_treatments_look_at_is_not_scored(drawn: Draw, where: str) -> None:
    copy = TextDocument("copy", "prose", text=FITTED[1].text)
    documents = [*DOCUMENTS, copy] if where == "/text" else DOCUMENTS
    tests = [document("t"), copy] if where == "/test_text" else None
    with pytest.raises(HemostatError) as caught:
        drawn(documents, tests)
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.CALIBRATION_OVERLAP, where)
    assert caught.value.detail == "1 document that treatments look at is also scored, such as 'copy'"
    allowed = drawn(documents, tests, allow_overlap=True)
    assert allowed.test.scored > 0
    assert (allowed.warnings[0].code, allowed.warnings[0].facts["documents"]) == ("looked_at", 1)


def test_a_document_that_the_test_holds_again_is_left_out(drawn: Draw) -> None:
    tests = [document("t"), document("u"), TextDocument("copy", "prose", text=document("t").text)]
    sets = drawn(DOCUMENTS, tests)
    assert ids(sets.test) == {"t", "u"}
    assert sets.warnings == (Warned.REPEATED_IN_SET(documents=1, set="test"),)


@pytest.mark.parametrize(
    ("documents", "tests", "pointer", "why"),
    [
        (DOCUMENTS[:1], None, "/text", "choose set: 1 document"),
        ([DOCUMENTS[0], DOCUMENTS[10]], None, "/text", "choose set: 2 documents of 2 domains"),
        (DOCUMENTS, [DOCUMENTS[0]], "/test_text", "test set"),
    ],
)
def test_a_set_without_a_document_is_refused(
    drawn: Draw, documents: list[TextDocument], tests: list[TextDocument] | None, pointer: str, why: str
) -> None:
    with pytest.raises(HemostatError, match=f"no document is left for the {why}") as caught:
        drawn(documents, tests)
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.INVALID_REQUEST, pointer)
