"""What was ruled on other devices."""

import pytest

from examples.paper.elsewhere import Ruling, fingerprint, merged, otherwise, read, table

RULE = fingerprint("a rule", {"job": {"kind": "sweep"}})
HERE, THERE = Ruling("a", "knee", RULE, "refuted"), Ruling("b", "knee", RULE, "confirmed")


def test_a_file_is_read_as_it_was_written_and_none_is_nothing(tmp_path):
    path = tmp_path / "rulings.csv"
    assert read(path) == ()
    path.write_text(table([HERE, THERE]))
    assert read(path) == (HERE, THERE)
    path.write_text("claim,outcome\nknee,refuted\n")
    with pytest.raises(ValueError, match=r"rulings\.csv has not the columns device, claim, rule, outcome"):
        read(path)


def test_a_claim_is_replaced_on_its_own_device_only():
    again = Ruling("a", "knee", HERE.rule, "not identifiable")
    other = Ruling("a", "cliff", HERE.rule, "refuted")
    assert merged([HERE, THERE, other], [again]) == (other, again, THERE)


def test_another_rule_or_job_has_another_fingerprint():
    assert len({RULE, fingerprint("another", {"job": {"kind": "sweep"}}), fingerprint("a rule", {"job": {}})}) == 3


def test_only_the_same_rule_on_another_device_with_another_outcome_is_told():
    same = Ruling("c", "knee", HERE.rule, "refuted")
    old = Ruling("d", "knee", fingerprint("an older rule", {"job": {"kind": "sweep"}}), "confirmed")
    claim = Ruling("e", "cliff", HERE.rule, "confirmed")
    assert otherwise([HERE, THERE, same, old, claim], HERE) == {"confirmed": ("b",)}
    assert otherwise([Ruling("a", "knee", RULE, "confirmed")], HERE) == {}, "an earlier one of its own device"
