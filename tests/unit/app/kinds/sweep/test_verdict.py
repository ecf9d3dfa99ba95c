"""The verdict of a sweep, from its finished report."""

import pytest

from app.kinds.sweep.report import SweepReport
from app.kinds.sweep.view import verdict_of
from tests.support.sweep_reports import beside_neutral, course, sweep_report, sweep_variants

VARIANTS = sweep_variants()


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        (
            VARIANTS["knee"],
            ["Mild up to sparsity 0.4182; the mean passes the limit at sparsity 0.4", "turns at s0 = 0.45"],
        ),
        (VARIANTS["straight"], ["The perplexity has no transition in the measured range."]),
        (VARIANTS["sides"], ["temperature: mild from 1 up to 1.5, nowhere below.", "There is no threshold: this knob"]),
        (VARIANTS["unordered"], ["damping: 2 of 4 settings are mild."]),
        (VARIANTS["single"], ["How far sparsity stays mild cannot be judged."]),
        (VARIANTS["broken"], ["At sparsity 0.8 some logits are not finite, which is a collapse."]),
        (beside_neutral(0.9), ["No value of factor but 1 stays mild."]),
        (sweep_report(course([(0.1, 0.1, 0.05, 0.03)])), ["sparsity not shown to stay mild; undecided at 0.1"]),
        (
            VARIANTS["asked"],
            [
                "Near-lossless by both halves: up to bits 6, stopped by tasks, open; at 6 2.2 [",
                "% lost on tasks. The reference is at chance on sums.",
            ],
        ),
        (VARIANTS["asked sides"], ["Near-lossless by both halves, below 1: up to temperature 1, stopped by tasks"]),
    ],
)
def test_it_says_how_far_one_may_go_and_where_the_curve_turns(body, parts):
    verdict = verdict_of(SweepReport.model_validate(body))
    assert verdict == body["verdict"]
    assert all(part in verdict for part in parts), verdict
