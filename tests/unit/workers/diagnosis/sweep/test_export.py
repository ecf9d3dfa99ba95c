"""What a sweep leaves beside its report: the curve, and metrics that the worker knows."""

import json
import math

import pytest

from app.contracts.errors import HemostatError
from app.kinds.sweep.report import Setting, SweepReport
from app.settings import Settings
from tests.support.attempts import Context
from tests.support.sweep_reports import bending, course, sweep_report, sweep_variants
from workers.analysis.threshold.answer import fit_threshold
from workers.analysis.threshold.request import parse_request
from workers.diagnosis.sweep.export import CURVE_FILE, export
from workers.telemetry import Telemetry

VARIANTS = sweep_variants()
MADE = course(bending())


def left(tmp_path, body, made=MADE):
    """Report, context, gauges and the file with the curve of these points."""
    report, context = SweepReport.model_validate(body), Context(Settings(home=tmp_path), tmp_path)
    export(report, made, context)
    told = {name: value for name, value, labels in context.samples if "outcome" not in labels}
    return report, context, told, context.output / CURVE_FILE


def test_the_share_up_to_which_damage_stays_mild_is_a_gauge(tmp_path):
    report, _, told, _ = left(tmp_path, VARIANTS["bits"])
    assert told["sweep_mild_ratio"] == pytest.approx(1 - report.largest_mild.largest.value / 16)
    assert math.isnan(left(tmp_path, VARIANTS["factor"])[2]["sweep_mild_ratio"]), "a factor removes no share"
    null = course([(None, 0.1, 0.001, 0.001), (8, 0.5, 0.9, 0.9)])
    report, _, told, _ = left(tmp_path, sweep_report(null), null)
    assert report.largest_mild.largest == Setting(value=None) and told["sweep_mild_ratio"] == pytest.approx(0.1)


def test_the_worker_knows_every_metric_and_counts_every_point(tmp_path):
    for name, body in VARIANTS.items():
        report, context, _, _ = left(tmp_path / name, body)
        telemetry = Telemetry()
        for sample, value, labels in context.samples:
            telemetry.observe(sample, value, **labels)
        counted = [telemetry.value("sweep_points", outcome=outcome) for outcome in ("measured", "refused")]
        refused = sum(bool(point.refused) for point in report.points)
        assert counted == [len(report.points) - refused, refused], name


def test_a_curve_is_left_where_the_knob_removes_a_share(tmp_path):
    report, _, _, file = left(tmp_path, sweep_report(MADE))
    curve = json.loads(file.read_text())
    assert curve["points"] == [[point.s, point.perplexity.candidate] for point in report.points]
    factors = course([(1.1, None, 0.1, 0.1), (2.0, None, 0.2, 0.2)])
    assert not left(tmp_path / "other", sweep_report(factors), factors)[3].exists()


def test_the_curve_is_what_the_threshold_was_fitted_to_and_is_taken_as_it_is(tmp_path):
    """Shares that are rounded to none, or to one that is there already, stand in no curve; nor does a collapse."""
    asked = [(0.01, 0.0, 0.0, 0.0), *bending(7), (0.9, 0.9, 3.0, 3.0)]
    asked.insert(2, (0.11, asked[1][1], asked[1][2], asked[1][3]))
    made = course(asked, broken=len(asked) - 1)
    report, _, _, file = left(tmp_path, sweep_report(made), made)
    request = parse_request(file.read_text())
    assert request.curve.s_N == pytest.approx([s for _, s, _, _ in bending(7)])
    assert len(request.curve) == report.threshold.points
    again = fit_threshold(request.curve, request.bounds, dense=request.dense)
    assert again.fit.s0 == pytest.approx(report.threshold.s0, abs=1e-4)
    assert again.fit.log_sse == pytest.approx(report.threshold.log_sse, rel=1e-4, abs=1e-9)


def test_a_curve_of_few_points_is_left_and_refused_with_their_number(tmp_path):
    report, _, _, file = left(tmp_path, VARIANTS["few"], course(bending(3)))
    assert report.threshold is None
    with pytest.raises(HemostatError, match="3 points are given"):
        parse_request(file.read_text())
