"""What the kernels of packed points add, with real engines on a tiny model; a compare job is the oracle."""

import pytest

from tests.integration.workers.measuring.points.test_runner import settings_of
from tests.support.processor import needs_avx512
from tests.support.tiny_jobs import Jobs, body, document, validated
from workers.measuring.points.attempt import PointsAttempt
from workers.measuring.points.kernels import DROPPED
from workers.measuring.sides import checkpoint_store

DOCUMENTS = [document(number) for number in range(8)]
ROUNDED = {"type": "quantize.rtn", "bits": 4, "group_size": {"sweep": [32, 64]}}
# A kernel that rounds activations differs from its weights in bf16 on every processor; that of 4-bit weights need not.
PACKED8 = {
    "type": "quantize.smoothquant",
    "strength": {"sweep": [0.3, 0.7]},
    "form": "packed",
    "calibration_windows": 4,
    "calibration_window": 64,
}


def test_each_packed_setting_has_the_kernel_term_of_a_comparison(jobs: Jobs) -> None:
    asked = validated(body("sweep", [PACKED8], DOCUMENTS))
    report = jobs.run(asked, "sweep")
    context = jobs.context
    points = sorted(report.points, key=lambda point: float(point.value))  # strengths stand by the damage measured
    assert [point.value for point in points] == [0.3, 0.7]
    assert context.phases.index("kernel_term") > context.phases.index("points")
    done = context.told("kernel_term")
    assert done == sorted(done) and done[-1][0] == done[-1][1]
    for point, setting in zip(points, settings_of(asked), strict=True):
        alone = jobs.compared(asked, setting.recipe, f"compare-{point.value}").kernel_term
        assert alone.kl.mean > 0
        assert point.kernel_term.scheme == alone.scheme == "w8a8"
        assert point.kernel_term.tokens == alone.tokens
        assert point.kernel_term.kl.mean == pytest.approx(alone.kl.mean, rel=1e-5)
        assert point.kernel_term.kl.ci == pytest.approx(alone.kl.ci, rel=1e-5)
        assert point.no_kernel_term == ""


def test_settings_on_the_reference_s_own_kernels_have_none(jobs: Jobs) -> None:
    asked = validated(body("sweep", [ROUNDED], DOCUMENTS))
    attempt = PointsAttempt(asked, jobs.attempt(), jobs.room)
    with attempt.ground() as ground:
        records = attempt.runner(ground, total=2).measure(settings_of(asked))
        kernels = attempt.kernels(ground, settings_of(asked), records)
    assert [(kernel.term, kernel.missing) for kernel in kernels] == [(None, ""), (None, "")]


@needs_avx512
def test_a_checkpoint_that_was_dropped_is_not_made_twice_and_the_report_says_why(jobs: Jobs) -> None:
    asked = validated(body("sweep", [ROUNDED | {"symmetric": True, "form": "packed"}], DOCUMENTS))
    context = jobs.attempt()
    attempt = PointsAttempt(asked, context, jobs.room)
    with attempt.ground() as ground:
        records = attempt.runner(ground, total=2).measure(settings_of(asked))
        store = checkpoint_store(context)
        store.budget_bytes = 0
        store.evict(room_for=1)
        kernels = attempt.kernels(ground, settings_of(asked), records)
        assert store.keys == ()
    assert [(kernel.term, kernel.missing) for kernel in kernels] == [(None, DROPPED), (None, DROPPED)]
