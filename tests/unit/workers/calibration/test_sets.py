"""Which documents are fitted, chosen by and tested with."""

from collections.abc import Callable
from pathlib import Path

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.notices import Warned
from app.kinds.calibrate.request import CalibrateRequest
from workers.calibration.sets import draw
from workers.text.documents import TextDocument
from workers.text.tokenization import load_tokenizer
from workers.text.windows import make_windows

REQUEST = CalibrateRequest.model_validate(
    {"kind": "calibrate", "reference": {"model": "a"}, "candidate": {"model": "b"}}
)


def document(name: str, text: str) -> TextDocument:
    return TextDocument(name, "prose", text=f"the quick brown fox {text} jumps over the lazy dog {text}")


def test_copies_are_left_out_of_the_test_whatever_they_are_copies_of(tiny: Callable[..., Path]) -> None:
    tokenizer = load_tokenizer(tiny())
    documents = [document(f"d{number}", str(number)) for number in range(10)]
    tests = [
        document("fitted", "3"),  # of a document that is fitted or chosen by
        document("t", "one"),
        document("u", "two"),
        document("again", "one"),  # of another one of the test
        document("and again", "ONE"),
    ]
    sets = draw(REQUEST, documents, tests, lambda chosen: make_windows(chosen, tokenizer, 64))
    assert {one.id for one in sets.test.documents} == {"t", "u"}
    assert sets.warnings == (
        Warned.USED_BEFORE(documents=1, set="test"),
        Warned.REPEATED_IN_SET(documents=2, set="test"),
    )
    assert len(sets.fit.documents) + len(sets.choose.documents) == 10


def test_a_domain_that_the_text_does_not_have_is_named_with_those_it_has(tiny: Callable[..., Path]) -> None:
    tokenizer = load_tokenizer(tiny())
    documents = [document(f"d{number}", str(number)) for number in range(10)]
    asked = REQUEST.model_copy(update={"fit_domains": ("prose", "klingon")})
    with pytest.raises(HemostatError, match="no domain 'klingon'; it has prose") as caught:
        draw(asked, documents, None, lambda chosen: make_windows(chosen, tokenizer, 64))
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.INVALID_REQUEST, "/fit_domains")
