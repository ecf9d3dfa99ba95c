"""What a sweep report decides and counts: how far one may go, which point is marked, which numbers stand where."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from app.kinds.sweep.charts import kl_chart, perplexity_chart, published_value
from app.kinds.sweep.fits import fit_view
from app.kinds.sweep.lossless import Setting
from app.kinds.sweep.report import SweepReport
from app.kinds.sweep.tables import limits, limits_note, points, points_note
from app.kinds.sweep.task_loss import answered_note, answered_table
from app.kinds.sweep.view import figures
from app.kinds.sweep.words import heading
from app.models.strength import Order
from app.reports.charts.curve import CurveDot, Knee, Level, curve_chart
from tests.support.answered import answered
from tests.support.sweep_reports import (
    beside_neutral,
    course,
    null_everywhere,
    null_mildest,
    sweep_report,
    sweep_variants,
)
from workers.analysis.threshold.published import basis
from workers.diagnosis.sweep.answered import answered_setting

VARIANTS = sweep_variants()


def sweep(report):
    """The tables and texts of a report by name."""
    fits = [fit_view(one) for one in (report.threshold, report.threshold_kl) if one is not None]
    return SimpleNamespace(
        heading=heading(report), figures=figures(report), points=points(report), points_note=points_note(report),
        kl_chart=kl_chart(report), perplexity_chart=perplexity_chart(report), fits=tuple(fits),
        no_threshold=report.no_threshold, limits=limits(report), limits_note=limits_note(report),
        answered=answered_table(report), answered_note=answered_note(report),
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


def test_an_undecided_weakest_setting_is_told_with_its_interval_on_page_and_terminal():
    body = sweep_report(course([(0.1, 0.1, 0.05, 0.03), (0.15, 0.15, 0.5, 0.4)]))
    found = sweep(SweepReport.model_validate(body))
    assert found.heading == "sparsity not shown to stay mild; undecided at 0.1"
    interval = found.limits.rows[0][2].note
    assert re.fullmatch(r"\[before the weakest, 0\.1\d*\]", interval)
    assert found.limits.rows[0][2].text == "undecided at 0.1"
    assert found.figures[0].interval == f"limit passed: undecided at 0.1 {interval}"


def headings():
    """By what is known of each side of the harmless value, 1: the last mild setting, None: not mild, or not judged."""
    report = SweepReport.model_validate(VARIANTS["sides"])
    unsure = {"largest": None, "undecided": (0.8,)}
    last = {
        "mild": {},
        "far": {"largest": Setting(value=2)},
        "near": {"largest": Setting(value=0.8)},
        "none": {"largest": None},
        "unsure": unsure,
    }
    for below in ("near", "none", "unsure", "not judged"):
        for above in ("far", "mild", "none", "unsure", "not judged"):
            sides = tuple(
                side.model_copy(
                    update={
                        "largest_mild": None
                        if which == "not judged"
                        else side.largest_mild.model_copy(update=last[which])
                    }
                )
                for side, which in zip(report.sides, (below, above), strict=True)
            )
            yield f"{below} below, {above} above: {heading(report.model_copy(update={'sides': sides}))}"
    reports = VARIANTS | {"only neutral": beside_neutral(0.9), "neutral, undecided": beside_neutral(0.05)}
    for name, body in reports.items():
        yield f"{name}: {heading(SweepReport.model_validate(body))}"


def test_headings_say_what_they_said(snapshot):
    snapshot("headings.txt", "\n".join(headings()))


def test_why_no_place_is_told_is_said_in_words_on_page_and_terminal():
    """All of the range is harmless to one quantity, and its first setting beyond the limit of the other."""
    body = sweep_report(course([(0.1, 0.1, 0.5, 0.01), (0.2, 0.2, 0.9, 0.02)]))
    found = sweep(SweepReport.model_validate(body))
    places = ["before the weakest setting", "not in the measured range"]
    assert [row[2].text for row in found.limits.rows] == places
    assert [figure.interval for figure in found.figures[:2]] == [f"limit passed: {place}" for place in places]
    alone = sweep(SweepReport.model_validate(VARIANTS["unordered"]))
    assert {row[2].text for row in alone.limits.rows} == {"each judged by itself"}


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


def test_a_side_that_was_not_measured_is_not_called_harmful():
    settings = [(0.5, None, 0.9, 0.9), (1.0, None, 0.001, 0.001), (2.0, None, 0.9, 0.9)]
    order = Order("around", (1, 0, 2), 1.0, ((1, 0), (1, 2)))
    body = sweep_report(course(settings, order=order, refused=0), field="factor", share=None)
    assert heading(SweepReport.model_validate(body)).endswith("stays mild on the side that could be judged")
    assert not any(row[0].note for row in sweep(SweepReport.model_validate(body)).points.rows)
    settings[2] = (2.0, None, 0.002, 0.002)
    body = sweep_report(course(settings, order=order, refused=0), field="factor", share=None)
    assert heading(SweepReport.model_validate(body)) == "factor: mild from 1 up to 2, not measured below"


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


def test_a_near_lossless_setting_that_is_not_mild_is_named_with_its_class():
    """The perplexity hardly rises, as it may where the text is easy; the distribution moves far."""
    given = [(0.1, 0.1, 0.02, 0.0), (0.3, 0.3, 0.3, 0.1), (0.5, 0.5, 0.8, 0.6)]
    body = sweep_report(course(given))
    report = SweepReport.model_validate(body)
    assert (report.largest_mild.strongest, report.near_lossless.strongest) == (0.1, 0.3)
    assert report.points[1].severity == "severe"
    found = sweep(report)
    assert (
        found.figures[1].note
        == "ln perplexity rises by less than 0.218; tasks were not asked; by KL the damage there is severe"
    )
    told = "at sparsity 0.3 the damage is severe. Where the damage shall be mild, go by the setting that stays mild."
    assert told in found.limits_note


def test_what_is_lost_on_tasks_is_told_by_setting_and_task_and_decides():
    found = view("asked")
    assert [(figure.label, figure.value) for figure in found.figures[:3]] == [
        ("Stays mild up to", "6"),
        ("Near-lossless by perplexity up to", "5"),
        ("Near-lossless by both halves up to", "6"),
    ]
    # Of 180 right 20 are lost, of 100 right 10 and 4 are gained: 11.1 % and 6 %.
    rows = [[cell.text for cell in row] for row in found.answered.rows]
    assert [row[:2] for row in rows] == [[bits, name] for bits in "56" for name in ("sentences", "arc", "sums", "mean")]
    assert [row[6] for row in rows[:4]] == ["11.1", "6.0", "–", "8.6"]
    assert [row[6] for row in rows[4:]] == ["4.4", "0.0", "–", "2.2"]
    assert [row[8] for row in rows] == [*"–––", "beyond 5 %, open", *"–––", "within 5 %, open"]
    assert rows[0][3:6] == ["87.4", "77.7", "20, 0"]
    assert "The reference is at chance on sums." in found.answered_note
    (both,) = (row for row in found.limits.rows if row[0].text == "Near-lossless by both halves")
    assert [cell.text for cell in both[1:4]] == ["6", "stopped by tasks, open", "5 % lost on tasks"]
    assert "was not asked" not in found.limits_note and "not asked" not in found.figures[1].note


def test_what_is_open_is_told_by_half():
    rows = [(0.1, 0.1, 0.02, 0.02), (0.2, 0.2, 0.1, 0.1), (0.3, 0.3, 0.214, 0.214), (0.4, 0.4, 0.223, 0.223)]

    def stopped(lost):
        def ask(point):
            return answered_setting(point.value, [answered("s", 180 - lost, 26, lost, 0)])

        found = sweep(SweepReport.model_validate(sweep_report(course(rows), asked=ask)))
        (row,) = (row for row in found.limits.rows if row[0].text == "Near-lossless by both halves")
        return row[2].text

    # 0.3 and 0.4 are at 1.239 and 1.250 times the perplexity, and their intervals hold 1.244.
    assert stopped(0) == "stopped by perplexity, open"
    assert stopped(6) == "stopped by perplexity, open by perplexity and tasks"


def test_without_an_order_the_settings_whose_perplexity_holds_the_limit_are_named():
    rows = [(0.1, None, 0.02, 0.02), (0.2, None, 0.214, 0.214), (0.3, None, 0.9, 0.9)]
    made = course(rows, order=Order("unknown", (0, 1, 2)))
    step = {"type": "quantize.gptq", "bits": 4, "damping": 0.1}
    report = sweep_report(made, field="damping", step=step, share=None)
    found = sweep(SweepReport.model_validate(report))
    (row,) = (row for row in found.limits.rows if row[0].text == "Near-lossless by perplexity")
    assert [cell.text for cell in row[1:3]] == ["0.2", "each judged by itself; undecided at 0.2"]
