"""The words of a surface report: heading, outcome, settings, orders."""

import pytest

from app.kinds.surface.view import figures
from app.kinds.surface.words import heading, outcome, setting
from tests.support.surface_reports import departing, surface_variant


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ({("as given", "overlaps"): 1, ("reversed", "compounds"): 1}, "They overlap at 1 of 20 settings"),
        ({("as given", "overlaps"): 11}, "They overlap"),
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
