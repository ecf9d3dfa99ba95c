"""Sums by class of many points are told where all points have them, of the same tokens."""

from tests.support.sweep_reports import course
from workers.measuring.points.by_class import by_class

SHARES = [(s, s, 0.002 * s, 0.001) for s in (0.2, 0.4, 0.6, 0.8)]
RECORDS = [point.record for point in course(SHARES).points]
BARE = [record.model_copy(update={"class_sums": None}) for record in RECORDS]


def test_sums_stand_in_the_order_of_the_points():
    found = by_class(list("abcd"), RECORDS, job="surface")
    assert list(found.sums) == [record.class_sums for record in RECORDS] and found.note == ""


def test_points_without_sums_are_named():
    found = by_class(list("abcd"), [BARE[0], *RECORDS[1:]], job="surface")
    assert list(found.sums) == []
    assert found.note == (
        "Token classes are not told: 1 of 4 settings (a), which an earlier version measured, has no sums by class. "
        "Run the surface again to have them."
    )
    assert "4 of 4 settings (a, b, c, …), which an earlier version measured, have no sums" in (
        by_class(list("abcd"), BARE, job="surface").note
    )


def test_other_tokens_in_a_class_are_not_held_against_each_other():
    sums = dict(RECORDS[1].class_sums)
    sums["numbers"] = sums["names"]
    mixed = RECORDS[1].model_copy(update={"class_sums": sums})
    found = by_class(list("abcd"), [RECORDS[0], mixed, *RECORDS[2:]], job="surface")
    assert list(found.sums) == [] and "different versions" in found.note and "Run the surface again" in found.note
    del sums["names"]
    fewer = RECORDS[1].model_copy(update={"class_sums": sums})
    assert "different versions" in by_class(["a", "b"], [RECORDS[0], fewer], job="surface").note
