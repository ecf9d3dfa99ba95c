"""A measured point: its sums, its blocks, and its file."""

import numpy as np
import pytest
from scipy import stats

from app.contracts.request import Thresholds
from tests.support.sweep_reports import DOCUMENTS, TOKENS, positions, values
from workers.measuring.points.record import PointRecord, record_of


def made(kl=0.1, loss=0.08, *, floor=0.0, **more):
    return record_of(values(kl, loss, **more), positions(), DOCUMENTS, floor=floor, thresholds=Thresholds(), seed=0)


def test_sums_and_means_are_those_of_numpy():
    found, point = values(0.1, 0.08), made()
    assert point.sums is not None and point.divergence is not None and point.perplexity is not None
    by_window = found.kl.reshape(DOCUMENTS, TOKENS).sum(axis=1)
    assert point.sums.kl == pytest.approx(by_window)
    assert point.divergence.kl.mean == pytest.approx(found.kl.mean())
    assert point.perplexity.candidate == pytest.approx(np.exp(-found.logp_candidate.mean()))
    # One window a document, so that the plain t interval of document means is near.
    low, high = stats.t.interval(0.95, DOCUMENTS - 1, found.kl.mean(), stats.sem(by_window / TOKENS))
    assert point.divergence.kl.ci == pytest.approx((low, high), rel=0.15)
    assert point.severity == "moderate"


def test_no_floor_is_taken_off_where_the_point_is_the_reference_to_the_last_bit():
    assert made(floor=1e-3).excess_kl.mean == pytest.approx(made().excess_kl.mean - 1e-3)
    same = made(kl=0.0, loss=0.0, floor=1e-3)
    assert (same.excess_kl.mean, same.excess_kl.ci, same.severity) == (0.0, (0.0, 0.0), "none")


def test_a_point_with_logits_that_are_not_finite_is_a_collapse_and_stands_in_no_curve():
    point = made(broken=7)
    assert (point.nonfinite_positions, point.severity, point.whole) == (7, "collapse", False)


def test_a_file_is_whole_or_no_point(tmp_path):
    file = tmp_path / "points" / "a.json"
    point = made()
    point.save(file)
    assert PointRecord.load(file) == point
    file.write_bytes(file.read_bytes()[:200])
    assert PointRecord.load(file) is None
    assert PointRecord.load(tmp_path / "none.json") is None
