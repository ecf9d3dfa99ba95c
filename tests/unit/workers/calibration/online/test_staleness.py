"""No news is not good news."""

import pytest

from workers.calibration.online.staleness import Staleness

RULE = Staleness(after_s=60)


def test_silence_is_stale_and_an_observation_ends_it() -> None:
    memory, decision = RULE.observed(RULE.start(1000.0), 1010.0)
    assert not decision.stale
    memory, decision = RULE.check(memory, 1070.0)
    assert (decision.stale, decision.age_s) == (False, 60)
    memory, decision = RULE.check(memory, 1071.0)
    assert (decision.stale, decision.began, decision.age_s) == (True, True, 61)
    memory, decision = RULE.check(memory, 1080.0)
    assert (decision.stale, decision.began) == (True, False)
    memory, decision = RULE.observed(memory, 1090.0)
    assert (decision.stale, decision.ended, memory.observed_at) == (False, True, 1090)
    assert not RULE.check(memory, 1150.0)[1].stale


def test_a_deployment_that_was_never_observed_becomes_stale_too() -> None:
    memory = RULE.start(1000.0)
    assert memory.observed_at is None
    assert not RULE.check(memory, 1059.0)[1].stale
    assert RULE.check(memory, 1061.0)[1].began


def test_a_clock_that_goes_back_makes_nothing_fresh_or_stale() -> None:
    memory, _ = RULE.observed(RULE.start(1000.0), 1010.0)
    earlier, _ = RULE.observed(memory, 900.0)
    assert earlier.since == 1010
    assert RULE.check(earlier, 950.0)[1].age_s == 0


def test_what_became_stale_stays_it_until_an_observation() -> None:
    memory, _ = RULE.check(RULE.start(1000.0), 2000.0)
    assert RULE.check(memory, 1001.0)[1].stale


@pytest.mark.parametrize(
    ("requests_per_s", "shadow_rate", "after_s"),
    [(10, 0.01, 600), (0.1, 0.01, 3000), (0, 0.01, 600), (10, 0, 600), (0.5, 0.01, 600)],
)
def test_the_time_follows_the_expected_gap(requests_per_s: float, shadow_rate: float, after_s: float) -> None:
    assert Staleness.for_traffic(requests_per_s, shadow_rate).after_s == pytest.approx(after_s)
