"""The view of a fitted threshold: which bounds it was fitted under."""

import numpy as np

from app.kinds.sweep.fits import fit_view
from app.kinds.sweep.report import SweepReport, Threshold
from tests.support.sweep_reports import course, stepping, sweep_report, sweep_variants


def fitted(**changes):
    found = SweepReport.model_validate(sweep_variants()["knee"]).threshold_kl
    assert isinstance(found, Threshold)
    return found.model_copy(update=changes)


def notes(threshold):
    return {row[0].text: row[2].text for row in fit_view(threshold).numbers.rows}


def test_every_coefficient_tells_its_bounds_the_knee_as_well():
    free = fitted(bounds=dict.fromkeys(("a", "b", "s0", "k1", "k2"), (None, None)))
    assert notes(free)["s0"] == "the share removed where the curve turns; no bounds"
    bound = notes(fitted(bounds=free.bounds | {"s0": (0.3, 0.7), "k1": (0.0, None)}, at_bounds=("s0",)))
    assert bound["s0"] == "the share removed where the curve turns; bounds 0.3 to 0.7, rests on one"
    assert bound["k1"] == "bounds 0 to open" and bound["b"] == "no bounds"


def test_a_turn_that_the_published_form_cannot_follow_is_placed_by_the_best_form():
    threshold = SweepReport.model_validate(sweep_report(course(stepping()))).threshold
    view = fit_view(threshold)
    assert view.answer == (
        "Not identifiable: the perplexity turns, and the published form does not say where; "
        "the best form, logistic, turns at s = 0.300."
    )
    assert [row[0].text for row in view.forms.rows if row[0].strong] == ["logistic"]
    assert "the curve turns, and this form does not show where" in notes(threshold)["s0"]
    assert "these points do not show where" in fit_view(
        threshold.model_copy(
            update={
                "transition_test": threshold.transition_test.model_copy(update={"p": 0.001}),
                "shown_by_rival": False,
            }
        )
    ).answer  # fmt: skip


def test_points_too_few_for_the_test_are_not_told_as_a_turn_in_sentence_or_page():
    shares = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
    losses = 0.1 + 3 * np.square(shares) + 0.1 * np.random.default_rng(1).standard_normal(7)
    rising = {"b": (0.0, None), "k1": (0.0, None), "k2": (0.0, None)}
    body = sweep_report(course([(s, s, 0.9 * x, float(x)) for s, x in zip(shares, losses, strict=True)]), bounds=rising)
    threshold = SweepReport.model_validate(body).threshold
    assert threshold.answer == "not identifiable" and "too few for the test to show" in threshold.reasons[0]
    assert threshold.shown_by_rival is False and not threshold.turn_shown
    assert "whether the perplexity turns cannot be known" in body["verdict"]
    assert fit_view(threshold).answer == "Not identifiable: whether the perplexity turns cannot be known."
    assert "parts of the form meet; whether the curve turns cannot be known" in notes(threshold)["s0"]


def test_a_line_is_named_as_what_the_published_form_does_not_beat():
    shares = np.linspace(0.05, 0.8, 15)
    losses = np.log(np.linspace(26, 90, 15)) - 3.2
    made = course([(float(s), float(s), 0.9 * float(x), float(x)) for s, x in zip(shares, losses, strict=True)])
    body = sweep_report(made)
    assert "The perplexity has no transition" in body["verdict"]
    forms = fit_view(SweepReport.model_validate(body).threshold).forms
    assert [row[0].text for row in forms.rows if row[0].strong] == ["straight line in y itself"]
