"""The whole answer: its contract, what it says of the published curves and of curves without a transition."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.support.knee_documents import around, curve_of, simulated
from tests.support.knees import RISING, SCENARIOS
from tests.support.stopping import StoppedError, stop_after
from tests.unit.workers.analysis.threshold.curves import CURVES
from tests.unit.workers.analysis.threshold.test_missed import SATURATING, logistic_curve
from workers.analysis.threshold import published
from workers.analysis.threshold.answer import TRANSITION_LEVEL, ThresholdAnswer, at_bounds, fit_threshold
from workers.analysis.threshold.bounds import Bounds
from workers.analysis.threshold.curve import Curve
from workers.analysis.threshold.documents import DocumentLosses

S_N = np.linspace(0.1, 0.8, 15)


@pytest.fixture(scope="module")
def answers() -> dict[str, ThresholdAnswer]:
    names = ("LLM_Pruner", "SLEB", "RIA", "w.DSnoT", "wanda")
    return {name: fit_threshold(CURVES[name].curve, CURVES[name].bounds) for name in names}


def test_the_contract_holds_for_few_points_and_for_many(answers: dict[str, ThresholdAnswer]) -> None:
    for name in ("LLM_Pruner", "SLEB"):
        answer = answers[name]
        written: dict[str, Any] = json.loads(json.dumps(answer.as_json(), allow_nan=False))
        assert written["params"]["s0"] == written["s0"] == answer.fit.s0
        assert written["ci"] == [answer.interval.low, answer.interval.high]
        assert written["log_sse"] == answer.fit.log_sse
        assert [rival["form"] for rival in written["rivals"]] == [
            "power_law", "exponential", "line", "logistic", "broken_line", "power_law_then_exponential_over_dense"
        ]  # fmt: skip
        assert written["form"] in {"power_law_then_exponential", *(rival["form"] for rival in written["rivals"])}
        assert written["bounds"] == CURVES[name].bounds.as_json()
        assert written["points"] == len(CURVES[name].curve)


def test_three_points_beyond_the_knee_of_ria_do_not_place_it(answers: dict[str, ThresholdAnswer]) -> None:
    answer = answers["RIA"]
    assert answer.answer == "not identifiable"
    assert any("3 points beyond the knee for 3 coefficients" in reason for reason in answer.reasons)
    search = published.search(answer.curve, answer.bounds)
    _, sse_G = search.designs(answer.curve.s_N, np.array([0.505, 0.54, 0.57])).solve(answer.curve.log_N)
    assert (sse_G < CURVES["RIA"].log_sse / 4).all()  # those of the published knee, 0.607


def test_a_knee_on_its_bound_is_not_identified(answers: dict[str, ThresholdAnswer]) -> None:
    answer = answers["w.DSnoT"]
    assert answer.answer == "not identifiable"
    assert any("rests on the lower bound of s0" in reason for reason in answer.reasons)
    assert "s0" in at_bounds(answer.fit, CURVES["w.DSnoT"].bounds)


def test_curves_of_many_points_have_a_transition(answers: dict[str, ThresholdAnswer]) -> None:
    for name in ("wanda", "SLEB"):
        assert (answers[name].answer, answers[name].reasons) == ("transition", ())
    warnings = answers["wanda"].warnings
    assert ("at_bound", {"coefficient": "k1", "value": 5}) in warnings
    assert "lack_of_fit" in dict(warnings)


def test_no_transition_is_answered_with_a_form_that_has_none() -> None:
    for truth_N in (2 + 0.3 * np.log(S_N), 1.5 + 3 * S_N, np.full(15, 1.7)):
        curve = Curve(S_N, truth_N + 0.03 * np.random.default_rng(11).standard_normal(15))
        answer = fit_threshold(curve, RISING)
        assert answer.answer == "no transition in range"
        assert answer.chosen.form.name in {"power_law", "exponential", "line"}
        assert not answer.as_json()["identifiable"]
        assert "describes the curve no better than" in answer.reasons[0]


def test_a_curve_that_saturates_is_not_called_straight_because_the_published_form_cannot_follow() -> None:
    answer = fit_threshold(SATURATING, RISING)
    assert answer.answer == "not identifiable"
    assert answer.transition.p > TRANSITION_LEVEL
    assert len(answer.reasons) == 1
    assert answer.chosen.form.name == "logistic"
    assert answer.chosen.aicc == min(rival.aicc for rival in (answer.own, *answer.rivals) if rival.aicc is not None)


def test_a_curve_that_grows_ever_more_slowly_has_no_threshold() -> None:
    s_N = np.linspace(0.05, 0.8, 16)
    log_N = np.log(5) + 2.5 * (1 - np.exp(-6 * s_N)) + 0.01 * np.random.default_rng(2).standard_normal(16)
    answer = fit_threshold(Curve(s_N, log_N), RISING)
    assert answer.answer == "not identifiable"
    assert "is flatter beyond s = " in answer.reasons[0]


def test_of_points_too_few_for_an_aicc_no_threshold_is_claimed() -> None:
    s_N = np.linspace(0.1, 0.7, 7)
    curve = Curve(s_N, 1 + 0.2 * s_N + 20 * np.maximum(s_N - 0.32, 0))
    answer = fit_threshold(curve)
    assert answer.own.aicc is None and answer.transition.p <= TRANSITION_LEVEL
    assert answer.answer == "not identifiable"
    assert "7 points are too few for the AICc of the published form" in " | ".join(answer.reasons)


def test_of_points_too_few_to_test_a_curve_is_called_straight_only_where_a_straight_form_is_near() -> None:
    s_N = np.array([0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5])
    measured = Curve(s_N, 3.3 + 3 * s_N**2 + 0.1 * np.random.default_rng(1).standard_normal(7))
    found = fit_threshold(measured, RISING)
    assert found.answer == "not identifiable"
    x_NK = np.column_stack([np.ones(7), s_N])
    off_N = np.expm1(measured.log_N - x_NK @ np.linalg.lstsq(x_NK, measured.log_N)[0])
    worst = off_N[np.abs(np.log1p(off_N)).argmax()]
    assert f"an exponential is off by up to {100 * abs(worst):.2g} %" in found.reasons[0]
    assert not found.shown_by_rival
    level = Curve(s_N, 3.3 + 0.01 * np.random.default_rng(0).standard_normal(7))
    assert fit_threshold(level, RISING).answer == "no transition in range"


def test_a_line_in_y_is_called_a_line_and_never_said_to_be_described_better_by_what_is_worse() -> None:
    s_N = np.linspace(0.1, 0.7, 20)
    log_N = np.log(np.linspace(5.2, 300, 20)) + 0.03 * np.random.default_rng(20).standard_normal(20)
    found = fit_threshold(Curve(s_N, log_N), RISING)
    assert (found.answer, found.chosen.form.name) == ("no transition in range", "line")
    assert found.chosen.fit.predict(s_N) == pytest.approx(log_N, abs=0.15)
    assert dict(found.warnings).get("better_form", {"difference": -1})["difference"] < 0


def test_a_curve_that_falls_is_told_as_such_and_a_level_one_is_not() -> None:
    falling = Curve(S_N, np.log(20 - 15 * S_N))
    level = Curve(S_N, 1.7 - 0.03 * np.abs(np.random.default_rng(11).standard_normal(15)))
    told = [dict(fit_threshold(curve, RISING).warnings) for curve in (falling, level)]
    assert ["falling" in one for one in told] == [True, False]


def test_a_step_is_not_called_straight_without_bounds_either() -> None:
    answer = fit_threshold(logistic_curve(0))
    assert answer.answer != "no transition in range"
    assert answer.chosen.form.name == "logistic"


def test_a_knee_that_the_bounds_of_s0_and_k2_keep_away_is_told_by_the_form_that_shows_it() -> None:
    log_N = 1.6 + 0.3 * S_N + 12 * np.maximum(S_N - 0.55, 0)
    curve = Curve(S_N, log_N + 0.02 * np.random.default_rng(4).standard_normal(15))
    answer = fit_threshold(curve, Bounds(s0=(0.1, 0.2), k2=(0, 0)))
    assert answer.answer == "not identifiable"
    assert "broken line, with its knee at s = 0.547" in answer.reasons[0]


def test_five_points_leave_nothing_to_test() -> None:
    curve = CURVES["wanda"].curve
    answer = fit_threshold(Curve(curve.s_N[::6], curve.log_N[::6]), RISING)
    assert answer.answer == "not identifiable"
    assert answer.reasons == ("5 points for 5 free coefficients leave nothing to test",)
    assert answer.lack_of_fit is None
    assert answer.own.aicc is None
    json.dumps(answer.as_json(), allow_nan=False)


def test_a_curve_of_the_form_itself_is_recognized_as_such() -> None:
    scenario = SCENARIOS["15 points, 0.02"]
    chosen = []
    for curve in scenario.curves(4, seed=0):
        answer = fit_threshold(curve, scenario.bounds)
        assert answer.answer == "transition"
        assert answer.as_json()["identifiable"]
        chosen.append(answer.chosen.form.name)
    assert chosen.count("power_law_then_exponential") >= 3


def test_a_knee_near_the_end_is_not_identified() -> None:
    s_N = np.linspace(0.1, 0.8, 15)
    bent_N = 2 + 0.1 * np.log(s_N) + 60 * np.maximum(s_N - 0.72, 0)
    curve = Curve(s_N, bent_N + 0.02 * np.random.default_rng(0).standard_normal(15))
    answer = fit_threshold(curve, RISING)
    assert answer.answer == "not identifiable"
    assert any("beyond the knee" in reason or "upper end" in reason for reason in answer.reasons)


def test_a_fixed_knee_is_not_called_identified() -> None:
    answer = fit_threshold(CURVES["wanda"].curve, Bounds(s0=(0.6, 0.6), b=(0, None)))
    assert answer.fit.s0 == 0.6
    assert "the bounds fix s0" in answer.reasons


def test_dense_gives_the_near_lossless_point_and_the_offset() -> None:
    curve = CURVES["admm"].curve
    written = fit_threshold(curve, RISING, dense=5.12).as_json()
    assert written["near_lossless"]["largest"] == 0.55
    over = written["rivals"][-1]
    assert over["params"]["dense"] == 5.12


def test_documents_give_the_interval_and_must_belong_to_the_curve() -> None:
    scenario = SCENARIOS["12 points, 0.03, k2 = 0"]
    losses = simulated(scenario, 60, np.random.default_rng(2))
    curve = Curve(scenario.s_N, losses.logs())
    answer = fit_threshold(curve, scenario.bounds, documents=losses)
    assert answer.as_json()["interval"]["resampled"] == "documents"
    assert answer.interval.low <= scenario.knee <= answer.interval.high
    with pytest.raises(ValueError, match="do not add up"):
        fit_threshold(replace(curve, log_N=curve.log_N + 0.01), scenario.bounds, documents=losses)


def test_documents_say_how_far_they_bend_a_straight_curve() -> None:
    """A level curve that the text's shared errors bend: a knee to whoever takes its points for independent."""
    s_N, rng, alone = np.linspace(0.1, 0.8, 12), np.random.default_rng(3), 0
    for _ in range(6):
        losses = around(np.full(12, 1.7), "accumulating", 20, rng)
        curve = curve_of(s_N, losses)
        alone += fit_threshold(curve).answer != "no transition in range"
        assert fit_threshold(curve, documents=losses).answer == "no transition in range"
    assert alone


def test_few_documents_that_bend_a_curve_as_much_leave_it_open_whether_it_turns() -> None:
    s_N, rng, shared = np.linspace(0.1, 0.8, 12), np.random.default_rng(2), 0
    for _ in range(12):
        losses = around(np.full(12, 1.7), "accumulating", 6, rng)
        answer = fit_threshold(curve_of(s_N, losses), documents=losses)
        if answer.transition.p_by_points <= TRANSITION_LEVEL < answer.transition.p:
            assert answer.answer == "not identifiable"
            shared += "what 6 documents share bends" in answer.reasons[0]
    assert shared


@pytest.mark.parametrize(("over", "told"), [(1.2, True), (1.3, False)])
def test_a_knee_of_a_curve_that_stays_near_lossless_is_said_to_break_nothing(over: float, told: bool) -> None:
    """A rise of one per cent, so much above the unmodified model."""
    s_N, dense = np.linspace(0.1, 0.8, 12), 6.0
    curve = Curve(s_N, np.log(over * dense) + 0.01 * (s_N / 0.8) ** 3)
    answer, without = fit_threshold(curve, RISING, dense=dense), fit_threshold(curve, RISING)
    assert answer.answer == without.answer == "transition"
    assert ("near_lossless" in dict(answer.warnings)) is told
    assert "near_lossless" not in dict(without.warnings)


def test_a_divergence_is_never_said_to_break_nothing() -> None:
    s_N = np.linspace(0.1, 0.8, 12)
    mean_N = 2 + 0.2 * (s_N / 0.8) ** 3
    losses = DocumentLosses.of(np.outer(mean_N, np.full(20, 100.0)), np.full(20, 100.0), "divergence")
    answer = fit_threshold(Curve.of(s_N, mean_N), RISING, dense=None, documents=losses)
    assert answer.answer == "transition"
    assert "near_lossless" not in dict(answer.warnings)


def test_the_same_seed_gives_the_same_answer_digit_by_digit(answers: dict[str, ThresholdAnswer]) -> None:
    case = CURVES["LLM_Pruner"]
    assert fit_threshold(case.curve, case.bounds).as_json() == answers["LLM_Pruner"].as_json()


def test_it_stops_when_told_to_between_two_fits_and_while_points_are_left_out() -> None:
    looks: list[None] = []
    with pytest.raises(StoppedError):
        fit_threshold(CURVES["LLM_Pruner"].curve, check=stop_after(2))
    answer = fit_threshold(CURVES["LLM_Pruner"].curve, check=lambda: looks.append(None))
    told = len(looks)
    answer.as_json()
    assert len(looks) > told + 2
