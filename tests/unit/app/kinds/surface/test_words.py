"""The words of a surface report: heading, outcome, settings, orders."""

import pytest

from app.kinds.surface.view import figures
from app.kinds.surface.words import heading, limits_note, orders_note, outcome, sentence, setting
from tests.support.surface_reports import departing, surface_variant


def test_the_heading_says_whether_they_add_up():
    assert heading(surface_variant("both-orders")) == "They compound"
    assert heading(surface_variant("adds-up")) == "They add up within 0.25 nats"
    sure = surface_variant("adds-up")
    unsure = [row.model_copy(update={"kind": "no_departure_shown"}) for row in sure.interactions[:1]]
    found = sure.model_copy(update={"interactions": (*unsure, *sure.interactions[1:])})
    assert heading(found) == "No departure from adding up shown"


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ({("as given", "overlaps"): 1, ("reversed", "compounds"): 1}, "They overlap at 1 of 20 settings"),
        ({("as given", "overlaps"): 10}, "They overlap at 10 of 20 settings"),
        ({("as given", "overlaps"): 11}, "They overlap"),
        (
            {("as given", "overlaps"): 19, ("as given", "additive_within_margin"): 1},
            "They overlap at 19 of 20 settings",
        ),
        ({("as given", "compounds"): 20}, "They compound"),
        ({("as given", "compounds"): 3}, "They compound at 3 of 20 settings"),
        ({("reversed", "compounds"): 3}, "No departure from adding up shown"),
        (
            {("as given", "overlaps"): 1, ("as given", "compounds"): 2},
            "Mixed: they compound at 2 and overlap at 1 of 20 settings",
        ),
    ],
)
def test_the_heading_speaks_of_the_order_that_was_given(kinds, words):
    found = departing(kinds)
    assert heading(found) == words
    assert ", steps exchanged" not in figures(found)[-1].note


def test_the_smallest_setting_within_the_loss_is_told_with_its_size():
    found = surface_variant("both-orders")
    chosen = found.chosen
    where = setting(found, chosen.first, chosen.second)
    assert outcome(found).lower().startswith(where)
    assert "is the smallest changed setting within 0.05 nats per token for sure" in outcome(found)
    sure = [one for one in found.points if one.within == "yes"]
    point = next(one for one in sure if (one.first, one.second) == (chosen.first, chosen.second))
    assert point.sparse_bytes == min(one.sparse_bytes for one in sure)


@pytest.mark.parametrize(
    ("within", "said"),
    [
        (("no", "no", "no"), ": all are beyond it."),
        (("undecided", "no", "no"), ": 1 of 3 is undecided, the others beyond it."),
        (("undecided", "undecided", "no"), ": 2 of 3 are undecided, the others beyond it."),
        (("undecided", "undecided", "undecided"), ": all are undecided."),
    ],
)
def test_how_many_settings_are_undecided_is_told_where_none_is_within(within, said):
    found = surface_variant("nothing-changed-within")
    changed = [one for one in found.points if one.recipe][:3]
    points = [one.model_copy(update={"within": told}) for one, told in zip(changed, within, strict=True)]
    unmodified = [one for one in found.points if not one.recipe]
    assert said in outcome(found.model_copy(update={"points": (*unmodified, *points)}))


def test_a_chosen_setting_that_saves_nothing_is_told_as_such():
    found = surface_variant("both-orders")
    assert "takes no less" not in outcome(found)
    larger = [one.model_copy(update={"sparse_bytes": 10 if one.recipe else 9}) for one in found.points]
    assert " It takes no less than the unmodified model. " in outcome(
        found.model_copy(update={"points": tuple(larger)})
    )


def test_knobs_of_one_step_begin_at_their_first_values_and_have_no_other_order():
    found = surface_variant("one-step")
    assert setting(found, 0, 0) == "bits 8, group_size 32"
    assert orders_note(found) == "Both knobs are in one step: there is no other order."
    assert "Only the order of the steps as given" in orders_note(surface_variant("adds-up"))


@pytest.mark.parametrize("drawn", ["documents", "windows"])
def test_limits_tell_whether_documents_or_windows_were_drawn(drawn):
    found = surface_variant("both-orders")
    kl = found.divergence.kl.model_copy(update={"clusters": drawn})
    found = found.model_copy(update={"divergence": found.divergence.model_copy(update={"kl": kl})})
    assert f"comes from {drawn} resampled jointly at all settings" in limits_note(found)


def test_the_verdict_says_whether_they_add_up_where_most_and_what_to_take():
    report = surface_variant("both-orders")
    most = max((row for row in report.interactions if row.order == "as given"), key=lambda row: abs(row.nats.mean))
    assert report.verdict == sentence(report)
    assert report.verdict.startswith("They compound; the largest interaction is ")
    assert f"nats per token at {setting(report, most.first, most.second)}. " in report.verdict
    assert report.verdict.endswith("Its recipe is ready for compare and deploy.")
    none = report.model_copy(update={"interactions": ()})
    assert sentence(none).startswith("Whether the two damages add up is not known")
