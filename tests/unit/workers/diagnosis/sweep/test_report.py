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
        ({"refused": 2}, True, [("refused_settings", {"settings": 2})]),
        ({"broken": 1}, True, [("nonfinite_settings", {"settings": 1})]),
        ({"documents": 5}, True, [("few_documents", {"documents": 5})]),
        ({"shares": EQUAL}, True, [("shared_shares", {"fits": "the fits"})]),
        ({"shares": EQUAL}, False, [("shared_shares", {"fits": ""})]),
    ],
)
def test_what_spoils_a_sweep_is_told_once_with_its_number(given, fitted, told):
    assert [(one.code, one.facts) for one in _warnings(swept(**given), fitted=fitted)] == told
