"""Amplification of decoders on hand-made trajectories."""

import pytest

from examples.paper.finding import NoNumberError
from examples.paper.rulings.decoding import decoding_distributions, decoding_tokens
from examples.paper.rulings.reports import Reports
from tests.support.paper_reports import mean, trajectory

ABOVE, BELOW, OPEN = (3.0, 2.0, 4.0), (0.5, 0.4, 0.6), (1.0, 0.8, 1.2)


@pytest.mark.parametrize("rule", [decoding_tokens, decoding_distributions])
@pytest.mark.parametrize(
    ("cells", "outcome"),
    [
        ((ABOVE, ABOVE, ABOVE, OPEN), "confirmed"),
        ((BELOW, BELOW, BELOW, OPEN), "refuted"),
        ((ABOVE, ABOVE, OPEN, OPEN), "not identifiable"),  # half is not more than half
        ((ABOVE, ABOVE, ABOVE, BELOW), "not identifiable"),
    ],
)
def test_more_than_half_on_one_side_and_none_on_the_other(rule, cells, outcome):
    report = trajectory(cells)
    finding = rule(Reports({"decoders": report}))
    assert finding.outcome == outcome
    assert f"4 cells of {report.prompts} prompts each" in finding.sentence
    assert [(figure.value, *figure.ci) for figure in finding.figures] == [pytest.approx(cell) for cell in cells]


def test_edits_are_of_the_whole_text_and_divided_at_the_unfavourable_ends():
    report = trajectory((ABOVE,))
    cell = report.cells[0]
    assert len(cell.edit_distance) > 1
    wide = cell.amplification.model_copy(update={"one_step": mean((0.2, 0.1, 0.4))})
    other = report.model_copy(update={"cells": (cell.model_copy(update={"amplification": wide}),)})
    (figure,) = decoding_tokens(Reports({"decoders": other})).figures
    assert (figure.value, *figure.ci) == pytest.approx((0.3 / 0.2, 0.2 / 0.4, 0.4 / 0.1))


def test_models_that_never_disagree_have_no_ratio_of_edits():
    report = trajectory((ABOVE,))
    cell = report.cells[0]
    none = cell.amplification.model_copy(update={"one_step": mean((0.01, 0.0, 0.02))})
    other = report.model_copy(update={"cells": (cell.model_copy(update={"amplification": none}),)})
    with pytest.raises(NoNumberError, match=r"greedy, quantize\.rtn: one-step disagreements: the interval reaches 0"):
        decoding_tokens(Reports({"decoders": other}))


def test_a_cell_without_damage_has_no_ratio():
    report = trajectory((ABOVE, ABOVE))
    cell = report.cells[0]
    ratio = cell.amplification.kl.model_copy(update={"value": None, "ci": None})
    broken = cell.model_copy(update={"amplification": cell.amplification.model_copy(update={"kl": ratio})})
    with pytest.raises(NoNumberError, match=r"greedy, quantize\.rtn"):
        decoding_distributions(Reports({"decoders": report.model_copy(update={"cells": (broken, report.cells[1])})}))
