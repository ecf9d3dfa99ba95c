"""What a reader of a sweep's report is warned of."""

from types import SimpleNamespace
from typing import cast

import pytest

from workers.diagnosis.sweep.report import Swept, _warnings


def swept(*, documents=8, refused=0, broken=0, shares=(0.1, 0.2)):
    records = [("", 0)] * 2 + [("the model has no such layer", 0)] * refused + [("", 3)] * broken
    padded = (*shares, *(0.5 + 0.01 * place for place in range(refused + broken)))
    points = [
        SimpleNamespace(s=s, record=SimpleNamespace(refused=why, nonfinite_positions=count))
        for s, (why, count) in zip(padded, records, strict=True)
    ]
    corpus = SimpleNamespace(documents=range(documents), repeated=0)
    ground = SimpleNamespace(part=SimpleNamespace(corpus=corpus), run=SimpleNamespace(context=None), allowed=())
    return cast("Swept", SimpleNamespace(course=SimpleNamespace(points=points), ground=ground))


EQUAL = (0.5, 0.5)


@pytest.mark.parametrize(
    ("given", "fitted", "told"),
    [
        ({}, True, []),
        ({"refused": 2}, True, ["2 settings could not be made or run, and are in no curve."]),
        ({"refused": 1}, True, ["1 setting could not be made or run, and is in no curve."]),
        ({"broken": 1}, True, ["At 1 setting some logits are not finite: it counts as collapse, and is in no curve."]),
        ({"documents": 1}, True, ["Only 1 document: intervals are clustered by windows"]),
        ({"documents": 5}, True, ["Only 5 documents: intervals are clustered by windows"]),
        ({"shares": EQUAL}, True, [", and the fits hold the one that was asked for first."]),
        ({"shares": EQUAL}, False, ["measured, the mildest first."]),
    ],
)
def test_what_spoils_a_sweep_is_told_once_with_its_number(given, fitted, told):
    warned = _warnings(swept(**given), fitted=fitted)
    assert len(warned) == len(told)
    assert all(words in one for words, one in zip(told, warned, strict=True))
