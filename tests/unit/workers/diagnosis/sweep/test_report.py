"""What a reader of a sweep's report is warned of."""

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from app.kinds.sweep.lossless import AnsweredSetting
from tests.support.answered import answered as answers
from workers.diagnosis.sweep.answered import answered_setting
from workers.diagnosis.sweep.report import Swept, _warnings


def swept(
    *,
    documents: int = 8,
    refused: int = 0,
    broken: int = 0,
    shares: tuple[float | None, ...] = (0.1, 0.2),
    answered: list[AnsweredSetting] | None = None,
) -> Swept:
    records = [("", 0)] * 2 + [("the model has no such layer", 0)] * refused + [("", 3)] * broken
    padded = (*shares, *(0.5 + 0.01 * place for place in range(refused + broken)))
    points = [
        SimpleNamespace(s=s, record=SimpleNamespace(refused=why, nonfinite_positions=count))
        for s, (why, count) in zip(padded, records, strict=True)
    ]
    corpus = SimpleNamespace(documents=range(documents), repeated=0)
    ground = SimpleNamespace(part=SimpleNamespace(corpus=corpus), run=SimpleNamespace(context=None), allowed=())
    return cast("Swept", SimpleNamespace(course=SimpleNamespace(points=points), ground=ground, answered=answered or []))


def test_a_sweep_of_enough_documents_whose_settings_are_all_whole_needs_no_word() -> None:
    assert _warnings(swept(), fitted=True) == []


@pytest.mark.parametrize(
    ("count", "could_not", "broken"),
    [
        (
            1,
            "1 setting could not be made or run, and is in no curve.",
            "At 1 setting some logits are not finite: it counts as collapse, and is in no curve.",
        ),
        (
            2,
            "2 settings could not be made or run, and are in no curve.",
            "At 2 settings some logits are not finite: they count as collapse, and are in no curve.",
        ),
    ],
)
def test_settings_that_stand_in_no_curve_are_counted(count: int, could_not: str, broken: str) -> None:
    assert _warnings(swept(refused=count), fitted=True) == [could_not]
    assert _warnings(swept(broken=count), fitted=True) == [broken]


@pytest.mark.parametrize(
    ("documents", "words"), [(1, "Only 1 document: intervals"), (5, "Only 5 documents: intervals")]
)
def test_too_few_documents_are_told(documents: int, words: str) -> None:
    (told,) = _warnings(swept(documents=documents), fitted=True)
    assert told.startswith(f"{words} are clustered by windows")


def test_which_of_equal_shares_the_fits_hold_is_told_where_there_are_fits() -> None:
    (fitted,) = _warnings(swept(shares=(0.5, 0.5)), fitted=True)
    (alone,) = _warnings(swept(shares=(0.5, 0.5)), fitted=False)
    assert fitted.endswith("the mildest first, and the fits hold the one that was asked for first.")
    assert alone.endswith("measured, the mildest first.")


def test_items_that_lost_their_beginning_are_told_once_a_task() -> None:
    cut = replace(answers("sums", 8, 2, 0, 0), shortened=3)
    rows = [answered_setting(value, [cut]) for value in (0.2, 0.1)]
    assert _warnings(swept(answered=rows), fitted=True) == [
        "3 items lost their beginning to fit the model's context: the task sums."
    ]
