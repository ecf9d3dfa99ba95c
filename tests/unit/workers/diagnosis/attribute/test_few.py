"""What is warned of where a text has too few documents, or windows."""

import numpy as np
import pytest

from workers.diagnosis.attribute.few import fallen_out, too_few, too_few_at_first
from workers.diagnosis.attribute.subset import Missed
from workers.distributions.token_values import Positions
from workers.measuring.means import mean_of


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
    assert told.startswith("Parts were measured on 1 token of 1 document, in 1 window")
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


def positions(documents: int, windows: int, tokens: int = 4) -> Positions:
    """So many documents of so many windows of so many scored tokens."""
    window = np.repeat(np.arange(documents * windows), tokens)
    return Positions(window // windows, window, window, window, window)


def test_parts_that_were_dropped_on_too_few_windows_are_counted() -> None:
    where = positions(8, 2)
    assert too_few_at_first([64, 64], where) == []
    assert too_few_at_first([64, 12], where) == [
        "1 part was measured on the first 12 tokens of 2 documents, in 3 windows: fewer than six of either, so that "
        "its nats have no interval and whether it does damage (`shown`) is not told. Give more `tokens`, or a larger "
        "`budget`, with which fewer parts are dropped so early."
    ]
    (three,) = too_few_at_first([16, 64, 12, 16], where)
    assert three.startswith("3 parts were measured on no more than the first 16 tokens of 2 documents, in 4 windows: ")
    assert "so that their nats have no interval and whether they do damage (`shown`) is not told." in three
    # the whole has too little itself: that is told of all parts
    assert too_few_at_first([12], positions(2, 2)) == []


def test_parts_that_were_dropped_on_too_few_documents_have_intervals_of_windows() -> None:
    without, narrow = too_few_at_first([32, 64, 12], positions(8, 2))
    assert without.startswith("1 part was measured on the first 12 tokens")
    assert narrow.startswith("1 part was measured on the first 32 tokens of 4 documents, in 8 windows: fewer than six ")
    assert "six documents, so that its intervals are clustered by windows, and too narrow. Give more" in narrow
    # that all intervals are of windows is told where it is so
    assert too_few_at_first([32, 72], positions(3, 6)) == []
    assert len(too_few_at_first([12, 72], positions(3, 6))) == 1


def test_they_are_those_that_have_no_interval() -> None:
    where = positions(8, 2)
    for tokens in range(4, 64, 4):
        kl = np.linspace(0.1, 0.2, tokens)
        ci = mean_of(kl, where.select(np.arange(tokens)), seed=0).ci
        told = too_few_at_first([tokens], where)
        assert any("no interval" in one for one in told) is (ci is None)
