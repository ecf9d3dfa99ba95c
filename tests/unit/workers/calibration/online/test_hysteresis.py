"""Pauses between changes."""

from workers.calibration.online.hysteresis import Hysteresis

RULE = Hysteresis(cooldown_s=100, fresh=10)
A, B = "cal-" + "a" * 16, "cal-" + "b" * 16


def test_a_refit_needs_new_evidence() -> None:
    memory = RULE.start()
    assert RULE.may_fit(memory, 0)
    memory = RULE.fitted(memory, 50)
    assert not RULE.may_fit(memory, 59)
    assert RULE.may_fit(memory, 60)


def test_a_version_that_was_rolled_back_waits_and_all_wait_for_new_evidence() -> None:
    memory = RULE.rolled_back(RULE.start(), A, now=1000.0, scored=50)
    assert not RULE.may_try(memory, A, 1099.0, 1000).allowed
    assert "barred" in RULE.may_try(memory, A, 1099.0, 1000).reason
    assert RULE.may_try(memory, A, 1100.0, 1000).allowed
    assert not RULE.may_try(memory, B, 1001.0, 59).allowed
    assert RULE.may_try(memory, B, 1001.0, 60).allowed
    assert not RULE.may_fit(memory, 59)


def test_a_version_that_was_rejected_waits_alone() -> None:
    memory = RULE.failed(RULE.start(), A, 1000.0)
    assert not RULE.may_try(memory, A, 1001.0, 0).allowed
    assert RULE.may_try(memory, B, 1001.0, 0).allowed
    assert RULE.may_fit(memory, 0)


def test_what_is_over_is_forgotten() -> None:
    memory = RULE.failed(RULE.failed(RULE.failed(RULE.start(), A, 0.0), B, 150.0), B, 200.0)
    assert memory.barred == ((B, 300.0),)
