"""Knees and two texts on hand-made reports."""

import pytest

from examples.paper.finding import NoNumberError
from examples.paper.rulings.curves import TWO_TEXTS, knee, one_text_hides
from examples.paper.rulings.reports import Reports
from tests.support.paper_reports import kneed, swept

THERE = (0.6, 0.57, 0.63)


@pytest.mark.parametrize(
    ("s0", "answer", "outcome"),
    [
        (THERE, "transition", "confirmed"),
        ((0.5, 0.45, 0.54), "transition", "refuted"),
        ((0.56, 0.52, 0.6), "transition", "not identifiable"),
        (THERE, "not identifiable", "not identifiable"),
    ],
)
def test_the_knee_of_the_second_method_decides_where_the_first_is_there(s0, answer, outcome):
    finding = knee(Reports({"wanda-sparsity": kneed(THERE), "sparsegpt-sparsity": kneed(s0, answer)}))
    assert finding.outcome == outcome
    assert [(figure.value, figure.ci) for figure in finding.figures] == [(0.6, (0.57, 0.63)), (s0[0], s0[1:])]


def test_a_curve_without_a_threshold_has_no_number():
    none = kneed(THERE).model_copy(update={"threshold": None, "no_threshold": "too few points stand in the curve"})
    with pytest.raises(NoNumberError, match="Wanda: too few points"):
        knee(Reports({"wanda-sparsity": none, "sparsegpt-sparsity": kneed(THERE)}))


HARMLESS, HARMFUL, EITHER = (1.1, 1.05, 1.15), (1.4, 1.3, 1.5), (1.25, 1.2, 1.3)


@pytest.mark.parametrize(
    ("known", "other", "outcome"),
    [(HARMLESS, HARMFUL, "confirmed"), (HARMLESS, HARMLESS, "refuted"), (HARMLESS, EITHER, "not identifiable")],
)
def test_a_setting_that_is_harmless_on_one_text_only_hides(known, other, outcome):
    rest = dict.fromkeys(TWO_TEXTS[1:], HARMLESS)
    finding = one_text_hides(
        Reports(
            {
                "wanda-sparsity": swept({TWO_TEXTS[0]: known} | rest),
                "wanda-sparsity-classes": swept({TWO_TEXTS[0]: other} | rest),
            }
        )
    )
    assert finding.outcome == outcome
    assert len(finding.figures) == 2 * len(TWO_TEXTS)
