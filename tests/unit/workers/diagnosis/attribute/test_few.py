"""What is warned of where a text has too few documents, or windows."""

import pytest

from workers.diagnosis.attribute.few import fallen_out, too_few
from workers.diagnosis.attribute.subset import Missed


@pytest.mark.parametrize(
    ("windows", "documents", "told"),
    [
        (6, 6, []),
        (8, 5, ["Parts were swapped on 500 tokens of 5 documents, fewer than six: their intervals are clustered by"]),
        (2, 2, ["Parts were swapped on 500 tokens of 2 documents, in 2 windows: fewer than six of either, so that no"]),
        (1, 1, ["Parts were swapped on 500 tokens of 1 document, in 1 window: fewer than six of either, so that no"]),
    ],
)
def test_what_few_documents_and_few_windows_mean_is_told(windows: int, documents: int, told: list[str]) -> None:
    found = too_few(500, windows, documents, swapped=True)
    assert len(found) == len(told)
    assert all(one.startswith(start) for one, start in zip(found, told, strict=True))


def test_of_gaps_nothing_was_swapped() -> None:
    (told,) = too_few(1, 1, 1, swapped=False)
    assert told.startswith("Gaps were measured on 1 token of 1 document, in 1 window")
    assert "swapped" not in told


def test_documents_that_fell_out_are_counted_with_why_and_what_to_give() -> None:
    assert fallen_out(Missed()) == []
    assert fallen_out(Missed(documents=6, length=42, short=2)) == [
        "2 of the 6 documents are not among those that parts were measured on: 2 for want of a window of 42 tokens, to "
        "which all are cut (give longer documents, or more of them, or fewer `tokens`, by which they are cut shorter)."
    ]
    (both,) = fallen_out(Missed(documents=8, length=32, short=1, over=4))
    assert both.startswith("5 of the 8 documents are not among")
    assert "cut shorter" not in both
    assert both.endswith("4 for want of `tokens` (give 192).")
    assert fallen_out(Missed(documents=2, length=32, short=1))[0].startswith("1 document of the text is not among")
