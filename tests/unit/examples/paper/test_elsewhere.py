"""What was ruled on other devices."""

import pytest

from examples.paper.elsewhere import Ruling, fingerprint, made_by, merged, otherwise, read, table

RULE = fingerprint("knee", 0, {"job": {"kind": "sweep"}})
STEPS = made_by({"surgery": 4, "prune.wanda": 1})
HERE, THERE = Ruling("a", "knee", RULE, STEPS, "refuted"), Ruling("b", "knee", RULE, STEPS, "confirmed")


def test_a_file_is_read_as_it_was_written_and_none_is_nothing(tmp_path):
    path = tmp_path / "rulings.csv"
    assert read(path) == ()
    path.write_text(table([HERE, THERE]))
    assert read(path) == (HERE, THERE)
    path.write_text("claim,outcome\nknee,refuted\n")
    with pytest.raises(ValueError, match=r"rulings\.csv has not the columns device, claim, rule, versions, outcome"):
        read(path)


def test_a_claim_is_replaced_on_its_own_device_only():
    again = Ruling("a", "knee", HERE.rule, made_by({"surgery": 5}), "not identifiable")
    other = Ruling("a", "cliff", HERE.rule, STEPS, "refuted")
    assert merged([HERE, THERE, other], [again]) == (other, again, THERE)


def test_another_rule_or_job_has_another_fingerprint():
    jobs = {"job": {"kind": "sweep"}}
    others = {fingerprint("cliff", 0, jobs), fingerprint("knee", 1, jobs), fingerprint("knee", 0, {"job": {}})}
    assert len({RULE, *others}) == 4


def test_only_the_same_rule_on_another_device_with_another_outcome_is_told():
    same = Ruling("c", "knee", RULE, STEPS, "refuted")
    old = Ruling("d", "knee", fingerprint("knee", 1, {"job": {"kind": "sweep"}}), STEPS, "confirmed")
    claim = Ruling("e", "cliff", RULE, STEPS, "confirmed")
    assert otherwise([HERE, THERE, same, old, claim], HERE) == {("confirmed", ""): ("b",)}
    assert otherwise([Ruling("a", "knee", RULE, STEPS, "confirmed")], HERE) == {}, "an earlier one of its own device"


def test_what_other_versions_of_the_steps_ruled_is_told_with_these_versions():
    before = made_by({"surgery": 3, "prune.wanda": 1})
    older = [Ruling(device, "knee", RULE, before, "confirmed") for device in ("c", "d")]
    agreeing = Ruling("e", "knee", RULE, before, "refuted")
    assert otherwise([*older, agreeing, THERE], HERE) == {
        ("confirmed", "other version: surgery 3"): ("c", "d"),
        ("confirmed", ""): ("b",),
    }


@pytest.mark.parametrize(
    ("before", "mark"),
    [
        ({"surgery": 4, "prune.wanda": 1}, ""),
        ({"surgery": 3, "prune.wanda": 11}, "other version: prune.wanda 11, surgery 3"),
        ({"surgery": 4}, "other version"),
    ],
)
def test_a_ruling_is_marked_by_the_versions_that_are_others(before, mark):
    assert Ruling("b", "knee", RULE, made_by(before), "confirmed").mark(HERE) == mark
