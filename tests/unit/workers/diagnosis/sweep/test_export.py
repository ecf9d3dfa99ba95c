"""What a sweep leaves beside its report: the curve, and metrics that the worker knows."""

import json
import math

import pytest

from app.contracts.sweep_report import SweepReport
from app.settings import Settings
from tests.support.attempts import Context
from tests.support.sweep_reports import sweep_variants
from workers.diagnosis.sweep.export import CURVE_FILE, export
from workers.telemetry import Telemetry

VARIANTS = sweep_variants()


def exported(tmp_path, name):
    report = SweepReport.model_validate(VARIANTS[name])
    context = Context(Settings(home=tmp_path), tmp_path)
    export(report, "0123456789abcdef" * 4, context)
    return report, context, {name: value for name, value, labels in context.samples if "outcome" not in labels}


def test_the_share_up_to_which_damage_stays_mild_is_a_gauge(tmp_path):
    report, _, told = exported(tmp_path, "bits")
    mild = report.largest_mild.largest
    assert told["sweep_mild_ratio"] == pytest.approx(1 - mild / 16)
    assert math.isnan(exported(tmp_path, "factor")[2]["sweep_mild_ratio"]), "a factor removes no share"


@pytest.mark.parametrize("name", VARIANTS)
def test_the_worker_knows_every_metric_and_counts_every_point(tmp_path, name):
    report, context, _ = exported(tmp_path, name)
    telemetry = Telemetry()
    for sample, value, labels in context.samples:
        telemetry.observe(sample, value, **labels)
    counted = [telemetry.value("sweep_points", outcome=outcome) for outcome in ("measured", "refused")]
    assert sum(counted) == len(report.points)
    assert counted[1] == sum(bool(point.refused) for point in report.points)


def test_a_curve_is_left_where_the_knob_removes_a_share(tmp_path):
    report, context, _ = exported(tmp_path, "knee")
    curve = json.loads((context.output / CURVE_FILE).read_text())
    assert curve["points"] == [[point.s, point.perplexity.candidate] for point in report.points]
    assert not (exported(tmp_path / "other", "factor")[1].output / CURVE_FILE).exists()
