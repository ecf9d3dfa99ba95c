"""What a report says beside its numbers."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from workers.diagnosis.assemble import repeated_documents


@pytest.mark.parametrize(("repeated", "words"), [(1, "1 of 8 documents repeats"), (3, "3 of 8 documents repeat")])
def test_documents_that_a_text_holds_again_are_warned_of(repeated: int, words: str) -> None:
    corpus = SimpleNamespace(repeated=repeated, documents=range(8))
    (told,) = repeated_documents(cast("Any", corpus))
    assert told.startswith(f"{words} an earlier one. Intervals take documents for independent")


def test_without_any_nothing_is_said() -> None:
    assert not list(repeated_documents(cast("Any", SimpleNamespace(repeated=0, documents=range(8)))))
