"""The guard: at once when worse, almost never when not."""

import math

import numpy as np
import pytest

from tests.bench.online import NEVER, Draw, paired, rollbacks, shifted, stream
from workers.calibration.online.rollback import GuardDecision, GuardMemory, RollbackGuard, Worse

LEVEL = 0.3
GUARD = RollbackGuard.new(LEVEL, alpha=0.01)


def harm(mean: float) -> Draw:
    gain = paired(-mean, level=LEVEL, sigma=0.7, own=0.3)
    return lambda rng, streams: -gain(rng, streams)


def fed(triples: list[tuple[float | None, float, float | None]]) -> tuple[GuardMemory, list[GuardDecision]]:
    memory, decisions = GUARD.start(), []
    for triple in triples:
        memory, decision = GUARD.update(memory, *triple)
        decisions.append(decision)
    return memory, decisions


def test_a_version_that_does_nothing_is_rolled_back_with_probability_alpha_at_most() -> None:
    first_S = rollbacks(GUARD, stream(harm(0.0), streams=1000, requests=5000, seed=1))
    assert (first_S != NEVER).mean() <= GUARD.alpha


@pytest.mark.parametrize(("times", "most"), [(0.3, 140), (1.0, 45), (3.0, 20)])
def test_a_version_that_turns_worse_after_1000_good_requests_is_rolled_back_at_once(times: float, most: int) -> None:
    harms = shifted(harm(-0.3 * LEVEL), harm(times * LEVEL), at=1000, streams=200, requests=1200, seed=2)
    first_S = rollbacks(GUARD, harms)
    assert (first_S > 1000).all()
    assert np.median(first_S) - 1000 <= most


def test_worse_than_raw_leads_to_raw_and_worse_than_the_version_before_leads_to_that() -> None:
    _, decisions = fed([(0.9, 0.3, 0.3)] * 20)
    assert next(decision.worse for decision in decisions if decision.worse) is Worse.RAW
    _, decisions = fed([(0.3, 0.4, 0.1)] * 60)
    assert next(decision.worse for decision in decisions if decision.worse) is Worse.PREVIOUS
    assert all(decision.e_raw < 1 for decision in decisions)
    _, decisions = fed([(0.2, 0.4, None)] * 200)
    assert not any(decision.worse for decision in decisions)
    assert decisions[-1].e_previous == pytest.approx(1)
    assert decisions[-1].mean_harm == pytest.approx(-0.2)


@pytest.mark.parametrize("active", [None, math.nan, math.inf])
def test_a_version_without_finite_divergence_is_rolled_back_within_a_few_requests(active: float | None) -> None:
    _, decisions = fed([(active, 0.3, None)] * 6)
    assert decisions[-1].worse is Worse.RAW
    assert decisions[0].worse is None


def test_the_simulation_and_the_guard_are_the_same() -> None:
    rng = np.random.default_rng(3)
    raw_TS = 0.3 * rng.lognormal(size=(300, 3))
    active_TS = raw_TS * rng.uniform(0.8, 2.0, size=(300, 3))
    first_S = rollbacks(GUARD, active_TS - raw_TS)
    for index in range(3):
        _, decisions = fed(
            [
                (float(active), float(raw), None)
                for active, raw in zip(active_TS[:, index], raw_TS[:, index], strict=True)
            ]
        )
        assert [decision.worse is Worse.RAW for decision in decisions].index(True) + 1 == first_S[index]


def test_without_what_it_is_compared_with_nothing_is_judged() -> None:
    for raw, previous in ((math.nan, None), (0.3, math.inf)):
        with pytest.raises(ValueError, match="not finite"):
            GUARD.update(GUARD.start(), 0.3, raw, previous)
