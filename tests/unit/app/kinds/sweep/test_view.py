"""What a sweep report decides and counts: how far one may go, which point is marked, which numbers stand where."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from app.kinds.sweep.charts import kl_chart, perplexity_chart, published_value
from app.kinds.sweep.fits import fit_view
from app.kinds.sweep.report import SweepReport
from app.kinds.sweep.tables import limits, limits_note, points, points_note
from app.kinds.sweep.view import figures
from app.kinds.sweep.words import heading
from app.reports.charts.curve import CurveDot, Knee, Level, curve_chart
from tests.support.sweep_reports import (
    course,
    null_everywhere,
    null_mildest,
    sweep_report,
    sweep_variants,
)
from workers.analysis.threshold.published import basis

VARIANTS = sweep_variants()


def sweep(report):
    """The tables and texts of a report by name."""
    fits = [fit_view(one) for one in (report.threshold, report.threshold_kl) if one is not None]
    return SimpleNamespace(
        heading=heading(report), figures=figures(report), points=points(report), points_note=points_note(report),
        kl_chart=kl_chart(report), perplexity_chart=perplexity_chart(report), fits=tuple(fits),
        no_threshold=report.no_threshold, limits=limits(report), limits_note=limits_note(report),
    )  # fmt: skip


def view(name):
    return sweep(SweepReport.model_validate(VARIANTS[name]))


def test_every_point_is_a_row_and_a_dot_in_both_charts():
    found = view("knee")
    assert len(found.points.rows) == 12
    assert found.kl_chart.count('class="point"') == 12
    assert found.perplexity_chart.count('class="point"') == 12
    assert [row[0].note for row in found.points.rows].count("last mild") == 1


def test_what_is_not_known_is_said_and_not_drawn():
    straight = view("straight")
    assert "no transition" in straight.fits[0].answer
    assert 'class="tail"' not in straight.perplexity_chart and 'class="mean"' not in straight.perplexity_chart
    factor = view("factor")
    assert factor.fits == () and "no share" in factor.no_threshold
    bits = view("bits")
    assert bits.figures[2].value == "–" and "not identifiable" in bits.figures[2].interval


def tied():
    """Three settings of two shares: too few for a fit."""
    settings = [("2:4", 0.5, 0.2, 0.2), ("4:8", 0.5, 0.1, 0.1), ("1:4", 0.75, 0.9, 0.8)]
    return sweep_report(course(settings), field="pattern", step={"type": "prune.wanda", "pattern": "2:4"})


def test_settings_of_one_share_are_named_together_and_no_fit_is_spoken_of():
    found = sweep(SweepReport.model_validate(tied()))
    for chart in (found.kl_chart, found.perplexity_chart):
        assert chart is not None
        assert re.findall(r">([^<>]*:[48][^<>]*)</text>", chart) == ["4:8, 2:4", "1:4"]
    assert "settings of 2 different shares could be measured" in found.no_threshold


def test_names_of_levels_neither_touch_nor_lie_under_the_axis():
    dots = [CurveDot(0.1, "0.1", "a setting", 20.0), CurveDot(0.2, "0.2", "another", 9000.0)]
    chart = curve_chart(
        dots, title="t", y_title="y", x_title="x", levels=[Level(24.0, "near-lossless"), Level(19.9, "unmodified")]
    )
    places = {name: float(y) for y, name in re.findall(r'y="([\d.]+)"[^>]*>(near-lossless|unmodified)<', chart)}
    axis = float(re.findall(r'class="base"[^>]*y1="([\d.]+)"|y1="([\d.]+)"[^>]*class="base"', chart)[0][1])
    assert places["near-lossless"] + 14 <= places["unmodified"] < axis


def test_why_no_place_is_told_is_said_in_words_on_page_and_terminal():
    """All of the range is harmless to one quantity, and its first setting beyond the limit of the other."""
    body = sweep_report(course([(0.1, 0.1, 0.5, 0.01), (0.2, 0.2, 0.9, 0.02)]))
    found = sweep(SweepReport.model_validate(body))
    places = ["before the weakest setting", "not in the measured range"]
    assert [row[2].text for row in found.limits.rows] == places
    assert [figure.interval for figure in found.figures[:2]] == [f"limit passed: {place}" for place in places]
    assert sweep(SweepReport.model_validate(VARIANTS["unordered"])).limits.rows == ()


def test_weak_settings_stand_left_though_their_values_fall():
    chart = view("bits").kl_chart
    places = {label: float(place) for place, label in re.findall(r'<text x="([\d.]+)%"[^>]*>(\d)</text>', chart)}
    assert places["8"] < places["4"] < places["2"]


@pytest.mark.parametrize(("body", "field"), [(null_everywhere(), "group_size"), (null_mildest(), "recovery_steps")])
def test_a_last_mild_setting_that_is_null_is_told_as_one(body, field):
    found = sweep(SweepReport.model_validate(body))
    assert found.heading == f"Mild up to {field} null"
    assert [figure.value for figure in found.figures[:2]] == ["null", "null"]
    assert [row[1].text for row in found.limits.rows] == ["null", "null"]
    assert [row[0].text for row in found.points.rows if row[0].note == "last mild"] == ["null"]


def test_values_around_a_harmless_one_stand_by_their_distance_from_it():
    found = view("around")
    assert found.heading == "temperature: 3 of 6 settings are mild", "1.25 and 1.5 are, and 0.8, nearer to 1, is not"
    assert found.points.caption == "Every measured setting, nearest to 1 first"
    assert [row[0].text for row in found.points.rows] == ["1", "0.8", "1.25", "1.5", "0.5", "2"]


def test_the_drawn_form_is_the_fitted_one():
    params = {"a": 3.0, "b": 0.2, "s0": 0.4, "k1": 2.0, "k2": 5.0}
    s = np.array([0.1, 0.4, 0.7])
    expected = np.exp(basis(s, np.array([0.4]))[0] @ np.array([np.log(3.0), 0.2, 2.0, 5.0]))
    assert [published_value(params, float(one)) for one in s] == pytest.approx(expected)


def test_a_chart_of_one_point_and_of_far_levels_can_be_drawn():
    dot = CurveDot(0.5, "0.5", "a setting", 0.1, (0.05, 0.2))
    chart = curve_chart(
        [dot],
        title="t",
        y_title="y",
        x_title="x",
        knee=Knee(0.5, (0.4, 0.6), "turns", sure=False),
        levels=[Level(1e6, "far"), Level(0.2, "near")],
    )
    assert "near" in chart and "far" not in chart and 'class="floor"' in chart
