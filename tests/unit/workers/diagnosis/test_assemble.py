"""What a report says beside its numbers."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.making import sides
from workers.diagnosis.assemble import left_out, of_making, repeated_documents


@pytest.mark.parametrize(("repeated", "words"), [(1, "1 of 8 documents repeats"), (3, "3 of 8 documents repeat")])
def test_documents_that_a_text_holds_again_are_warned_of(repeated: int, words: str) -> None:
    corpus = SimpleNamespace(repeated=repeated, documents=range(8))
    (told,) = repeated_documents(cast("Any", corpus))
    assert told.startswith(f"{words} an earlier one. Intervals take documents for independent")


def test_without_any_nothing_is_said() -> None:
    assert not list(repeated_documents(cast("Any", SimpleNamespace(repeated=0, documents=range(8)))))


@pytest.mark.parametrize(
    ("nonfinite", "told"),
    [
        (0, []),
        (1, ["1 position had non-finite logits and is left out of every mean."]),
        (1200, ["1,200 positions had non-finite logits and are left out of every mean."]),
    ],
)
def test_positions_that_stand_in_no_mean_are_counted(nonfinite: int, told: list[str]) -> None:
    assert left_out(nonfinite) == told


def test_what_steps_warned_of_is_told_with_their_types() -> None:
    assert of_making(sides("too little text", "more damping was needed")) == [
        "Of making the candidate by quantize.gptq: too little text",
        "Of making the candidate by quantize.gptq: more damping was needed",
    ]
    assert of_making(sides("too little text"), "candidate 2") == [
        "Of making candidate 2 by quantize.gptq: too little text"
    ]
    assert of_making(sides()) == []
