"""Trials: one that is not better is never promoted (probability at most α), one that is better soon is."""

import math

import numpy as np
import pytest

from tests.bench.online import NEVER, Draw, paired, promotions, rejections, stream
from workers.calibration.online.promotion import PairedTrial, TrialDecision, TrialMemory, TrialVerdict

LEVEL = 0.3
TRIAL = PairedTrial.new(LEVEL, alpha=0.01)


def fed(pairs: list[tuple[float, float | None]], trial: PairedTrial = TRIAL) -> tuple[TrialMemory, TrialDecision]:
    memory, decision = trial.update(trial.start(), *pairs[0])
    for pair in pairs[1:]:
        memory, decision = trial.update(memory, *pair)
        if decision.verdict is not TrialVerdict.TRIAL:
            break
    return memory, decision


def rare(share: float, loss: float) -> Draw:
    """Gains that a rare loss takes back exactly: mean 0."""
    return lambda rng, streams: np.where(rng.random(streams) < share, -loss, loss * share / (1 - share))


@pytest.mark.parametrize(
    "draw",
    [
        paired(0.0, level=LEVEL, sigma=0.7, own=0.3),
        paired(-0.05 * LEVEL, level=LEVEL, sigma=1.0, own=0.3),
        paired(-LEVEL, level=LEVEL, sigma=0.7, own=0.3),
        rare(0.1, 2 * LEVEL),
        rare(0.01, 4 * LEVEL),
        rare(0.5, LEVEL),
    ],
    ids=["equal", "worse", "twice", "one_in_10", "one_in_100", "even"],
)
def test_a_poisoned_candidate_is_promoted_with_probability_alpha_at_most(draw: Draw) -> None:
    first_S = promotions(TRIAL, stream(draw, streams=1000, requests=TRIAL.most, seed=1))
    assert (first_S != NEVER).mean() <= TRIAL.alpha


@pytest.mark.parametrize(("share", "least", "most"), [(0.1, 0.99, 450), (0.2, 1.0, 210), (0.3, 1.0, 140)])
def test_a_better_candidate_is_promoted_soon(share: float, least: float, most: int) -> None:
    draw = paired(share * LEVEL, level=LEVEL, sigma=0.7, own=0.3)
    first_S = promotions(TRIAL, stream(draw, streams=300, requests=TRIAL.most, seed=2))
    assert (first_S != NEVER).mean() >= least
    assert np.median(first_S) <= most


def test_a_worse_candidate_is_rejected_soon_and_an_equal_one_seldom() -> None:
    worse = rejections(TRIAL, stream(paired(-0.1, level=LEVEL, sigma=0.7, own=0.3), streams=300, requests=500, seed=3))
    equal = rejections(TRIAL, stream(paired(0.0, level=LEVEL, sigma=0.7, own=0.3), streams=300, requests=2000, seed=3))
    assert (worse != NEVER).all()
    assert (equal != NEVER).mean() <= TRIAL.reject_alpha


def test_a_collapsed_candidate_is_rejected_within_a_few_requests_and_not_by_one() -> None:
    memory, decision = fed([(0.3, 8.0)] * 20)
    assert (decision.verdict, memory.seen <= 5) == (TrialVerdict.REJECT, True)
    _, decision = fed([(0.3, 1e6)] + [(0.3, 0.3)] * 5)
    assert decision.verdict is TrialVerdict.TRIAL


def test_clipping_works_against_the_candidate() -> None:
    """A huge gain counts as the bound, a huge loss as itself."""
    _, usual = fed([(0.5, 0.2)] * 10)
    _, gained = fed([(0.5, 0.2)] * 9 + [(50.0, 0.2)])
    assert gained.e_better == pytest.approx(usual.e_better, rel=1e-12)
    _, once = fed([(0.5, 0.2)] * 9 + [(0.3, 0.3 + TRIAL.loss_bound)])
    _, often = fed([(0.5, 0.2)] * 9 + [(0.3, 0.3 + 10 * TRIAL.loss_bound)])
    assert often.e_better < once.e_better / 2 < usual.e_better / 2


def test_the_simulation_and_the_trial_are_the_same() -> None:
    rng = np.random.default_rng(4)
    active_TS = 0.3 * rng.lognormal(size=(400, 3))
    candidate_TS = active_TS * rng.uniform(0.4, 1.2, size=(400, 3))
    first_S = promotions(TRIAL, active_TS - candidate_TS)
    for index in range(3):
        memory, decision = fed(list(zip(active_TS[:, index].tolist(), candidate_TS[:, index].tolist(), strict=True)))
        assert (decision.verdict, memory.seen) == (TrialVerdict.PROMOTE, first_S[index])
        assert decision.mean_gain == pytest.approx((active_TS - candidate_TS)[: memory.seen, index].mean())


def test_a_trial_waits_for_enough_requests_and_ends_after_too_many() -> None:
    trial = PairedTrial(loss_bound=0.3, gain_bound=0.3, fewest=40, most=60)
    memory, decision = fed([(0.6, 0.3)] * 60, trial)
    assert (decision.verdict, memory.seen) == (TrialVerdict.PROMOTE, 40)
    memory, decision = fed([(0.3, 0.3)] * 100, trial)
    assert (decision.verdict, memory.seen) == (TrialVerdict.INCONCLUSIVE, 60)
    with pytest.raises(ValueError, match="ended"):
        trial.update(memory, 0.3, 0.3)


def test_what_must_be_exceeded_is_not_exceeded_by_less() -> None:
    for margin, verdict in ((0.01, TrialVerdict.PROMOTE), (0.03, TrialVerdict.INCONCLUSIVE)):
        trial = PairedTrial(loss_bound=0.3, gain_bound=0.3, margin=margin, most=500)
        assert fed([(0.30, 0.27)] * 500, trial)[1].verdict is verdict


@pytest.mark.parametrize("candidate", [math.nan, math.inf, None])
def test_a_candidate_without_a_finite_divergence_is_rejected(candidate: float | None) -> None:
    memory, decision = fed([(0.3, 0.1)] * 5 + [(0.3, candidate)])
    assert decision.verdict is memory.verdict is TrialVerdict.REJECT
    assert "finite" in decision.reason


def test_without_the_active_versions_divergence_nothing_is_judged() -> None:
    with pytest.raises(ValueError, match="not finite"):
        TRIAL.update(TRIAL.start(), math.nan, 0.1)
