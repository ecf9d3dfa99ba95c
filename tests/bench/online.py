"""Simulation of the on-line loop's decisions: false alarms, delays, power. `python -m tests.bench.online` writes a CSV.

Thousands of streams step at once through the very functions that the machines use one at a time
(`workers.calibration.online.capital`); the tests hold both to each other. Nothing here depends on the machine's speed.

Shapes: S streams, T requests, L lengths of blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.bench.online_requests import Traffic, by_source, drift_limit, read
from tests.bench.rows import Row, write
from workers.calibration.online.capital import advance, opening, spent, value
from workers.calibration.online.drift import LEAST_LEVEL, DriftDetector
from workers.calibration.online.promotion import REJECT_BOUND, PairedTrial
from workers.calibration.online.quiet import (
    BLOCKS,
    CLIP,
    FEWEST,
    FIRST,
    MOST,
    QuietDetector,
    dependence,
    upper_limit,
)
from workers.calibration.online.rollback import RollbackGuard

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Array]

FILE = Path(__file__).with_name("online.csv")
NEVER = 0
SHARE = 0.005  # of a deployment's usual α of 0.01, for each of its two alarms
CHANGE = 5000  # recorded requests before they get worse
RUNS = (1, 50, 200)  # recorded requests in a row about one source


def crossings(payoffs: Iterable[Array], level: float, *, restarts: bool, fewest: int = 1) -> NDArray[np.int64]:
    """At which request, from 1, each stream's capital first stood at `level` or above; NEVER where it did not.

    `payoffs` gives one array (S,) a request. Not before request `fewest`.
    """
    return _crossings(((payoff_S, 1.0) for payoff_S in payoffs), level, restarts=restarts, fewest=fewest)


def _crossings(
    stakes: Iterable[tuple[Array, Array | float]], level: float, *, restarts: bool, fewest: int = 1
) -> NDArray[np.int64]:
    """The same of payoffs with their dependence."""
    first_S, staked_SK = np.zeros(0, dtype=np.int64), np.zeros((0, 0))
    for step, (payoff_S, dependence_S) in enumerate(stakes):
        if step == 0:
            first_S = np.zeros(len(payoff_S), dtype=np.int64)
            staked_SK = opening(len(payoff_S), restarts=restarts)
        staked_SK = advance(staked_SK, payoff_S, step, restarts=restarts, dependence_S=dependence_S)
        if step + 1 >= fewest:
            crossed_S = (value(staked_SK, step + 1, restarts=restarts) >= level) & (first_S == NEVER)
            first_S[crossed_S] = step + 1
        staked_SK[first_S != NEVER] = 0.0
    return first_S


def alarms(detector: DriftDetector, values: Iterable[Array]) -> NDArray[np.int64]:
    """When each stream of mean divergences first raises the alarm."""
    payoffs = (np.minimum(x_S / detector.threshold, detector.bound) - 1 for x_S in values)
    return crossings(payoffs, 1 / spent(detector.alpha, 1), restarts=True)


def quiet_alarms(detector: QuietDetector, values: Iterable[Array]) -> NDArray[np.int64]:
    """When each stream of mean divergences first raises the quiet alarm; the first requests are learned from."""
    first_S = _crossings(_quiet_stakes(detector, values), 1 / spent(detector.alpha / 2, 1), restarts=True)
    return np.where(first_S == NEVER, NEVER, first_S + FIRST + FEWEST)


def _quiet_stakes(detector: QuietDetector, values: Iterable[Array]) -> Iterator[tuple[Array, Array]]:
    """Payoff and dependence of each request from the one on that is tested; all streams learn at once.

    Where there is no limit yet, nothing is paid.
    """
    error = spent(detector.alpha / 2, 1)
    values = iter(values)
    scale_S = next(values)
    for seen in range(1, FIRST):
        x_S = next(values)
        scale_S = scale_S + np.where(scale_S > 0, np.minimum(x_S, CLIP * scale_S / seen), x_S)
    bound_S = CLIP * np.maximum(scale_S / FIRST, LEAST_LEVEL)
    total_S, spread_S = np.zeros(len(bound_S)), np.zeros(len(bound_S))
    begun_LS, squares_LS = np.zeros((len(BLOCKS), len(bound_S))), np.zeros((len(BLOCKS), len(bound_S)))
    least_S, tau_S = np.full(len(bound_S), 0.5), np.ones(len(bound_S))
    for learned, x_S in enumerate(values):
        y_S = np.minimum(x_S / bound_S, 1.0)
        if learned >= FEWEST:
            yield np.where(least_S < 0.5, y_S / least_S - 1, 0.0), tau_S
        if learned >= MOST:
            continue
        spread_S = spread_S + (y_S - (1 / CLIP + total_S) / (1 + learned)) ** 2
        total_S, begun_LS, count = total_S + y_S, begun_LS + y_S, learned + 1
        full_L = count % np.asarray(BLOCKS) == 0
        squares_LS[full_L] += begun_LS[full_L] ** 2
        begun_LS[full_L] = 0.0
        if count >= FEWEST and full_L[-1]:
            found_S = dependence(count, total_S, spread_S, squares_LS)
            limit_S = upper_limit(count, total_S, spread_S, found_S, error)
            least_S, tau_S = np.where(limit_S < least_S, (limit_S, found_S), (least_S, tau_S))


def clearings(detector: DriftDetector, values: Iterable[Array]) -> NDArray[np.int64]:
    """When each stream, from the alarm on, clears it."""
    target = 1 - detector.margin
    payoffs = ((target - x_S / detector.threshold) / (detector.relief_bound - target) for x_S in values)
    return crossings(payoffs, 1 / detector.relief_alpha, restarts=True)


def promotions(trial: PairedTrial, gains: Iterable[Array]) -> NDArray[np.int64]:
    """When each stream of gains (KL active - candidate) shows the candidate to be better; rejections left out."""
    payoffs = ((np.minimum(g_S, trial.gain_bound) - trial.margin) / (trial.loss_bound + trial.margin) for g_S in gains)
    return crossings(payoffs, 1 / trial.alpha, restarts=False, fewest=trial.fewest)


def rejections(trial: PairedTrial, gains: Iterable[Array]) -> NDArray[np.int64]:
    """When each stream of gains shows the candidate to be worse."""
    payoffs = (np.minimum(-g_S / trial.loss_bound, REJECT_BOUND) for g_S in gains)
    return crossings(payoffs, 1 / trial.reject_alpha, restarts=False)


def rollbacks(guard: RollbackGuard, harms: Iterable[Array]) -> NDArray[np.int64]:
    """When each stream of harms (KL active - raw) leads to a rollback."""
    payoffs = (np.minimum(h_S, guard.harm_bound) / guard.benefit_bound for h_S in harms)
    return crossings(payoffs, 2 / guard.alpha, restarts=True)


def lognormal(mean: float, sigma: float) -> Draw:
    """Independent lognormal values of this mean; sigma is that of their logarithm, 0 is a constant."""
    return lambda rng, streams: np.asarray(mean * np.exp(sigma * rng.standard_normal(streams) - sigma**2 / 2))


def two_point(mean: float, high: float) -> Draw:
    """0 or `high`: the most extreme values of this mean within a bound."""
    return lambda rng, streams: np.where(rng.random(streams) < mean / high, high, 0.0)


def stream(draw: Draw, *, streams: int, requests: int, seed: int) -> Iterator[Array]:
    """Independent requests, one array (S,) each."""
    rng = np.random.default_rng(seed)
    return (draw(rng, streams) for _ in range(requests))


def shifted(before: Draw, after: Draw, *, at: int, streams: int, requests: int, seed: int) -> Iterator[Array]:
    """`at` requests of one law, then requests of another until `requests` are over."""
    rng = np.random.default_rng(seed)
    return ((before if step < at else after)(rng, streams) for step in range(requests))


def autocorrelated(mean: float, sigma: float, rho: float, *, streams: int, requests: int, seed: int) -> Iterator[Array]:
    """Lognormal values whose logarithms follow an AR(1) of correlation `rho`: the marginal mean is `mean`."""
    rng = np.random.default_rng(seed)
    log_S = rng.standard_normal(streams)
    for _ in range(requests):
        yield mean * np.exp(sigma * log_S - sigma**2 / 2)
        log_S = rho * log_S + math.sqrt(1 - rho**2) * rng.standard_normal(streams)


def runs(
    mean: float, sigma: float, length: int, alike: float, *, streams: int, requests: int, seed: int
) -> Iterator[Array]:
    """Lognormal values in runs of `length`, the first of which has begun at any time before.

    Within a run the share `alike` of the variance of their logarithms is common to all.
    """
    rng = np.random.default_rng(seed)
    begun_S, common_S = rng.integers(length, size=streams), rng.standard_normal(streams)
    for step in range(requests):
        common_S = np.where((begun_S + step) % length == 0, rng.standard_normal(streams), common_S)
        log_S = math.sqrt(alike) * common_S + math.sqrt(1 - alike) * rng.standard_normal(streams)
        yield mean * np.exp(sigma * log_S - sigma**2 / 2)


def paired(mean_gain: float, *, level: float, sigma: float, own: float) -> Draw:
    """Gains of a candidate over an active profile of mean divergence `level` (lognormal, sigma).

    The candidate keeps the share 1 - mean_gain/level of each request's divergence, times a lognormal factor of its own.
    """

    def draw(rng: np.random.Generator, streams: int) -> Array:
        active_S = lognormal(level, sigma)(rng, streams)
        return active_S * (1 - (1 - mean_gain / level) * lognormal(1.0, own)(rng, streams))

    return draw


def _share(first_S: NDArray[np.int64]) -> float:
    return float((first_S != NEVER).mean())


def _delays(case: str, first_S: NDArray[np.int64], at: int = 0, *, unit: str = "requests") -> list[Row]:
    """Share of streams that got there in the time simulated; median and 90 % quantile of the delay, the others last."""
    kept_S = first_S[(first_S == NEVER) | (first_S > at)]
    delay_S = np.sort(np.where(kept_S == NEVER, np.inf, kept_S - at))
    rows = [Row("online", case, "reached_ratio", _share(kept_S), "ratio")]
    for name, part in (("delay_median", 0.5), ("delay_p90", 0.9)):
        delay = delay_S[math.ceil(part * len(delay_S)) - 1]
        if math.isfinite(delay):
            rows.append(Row("online", case, name, float(delay), unit))
    return rows


def drift_rows(streams: int = 1000, requests: int = 10_000) -> list[Row]:
    """False alarms at the border of the null, and delays, with threshold 1."""
    detector = DriftDetector.new(1.0, SHARE)
    rows = []
    nulls: dict[str, Iterable[Array]] = {
        "two_point": stream(two_point(1.0, detector.bound), streams=streams, requests=requests, seed=1)
    }
    for sigma in (0.5, 1.0, 1.5):
        nulls[f"lognormal_{sigma}"] = stream(lognormal(1.0, sigma), streams=streams, requests=requests, seed=2)
    for mean in (1.0, 0.8, 0.67):
        for rho in (0.3, 0.6, 0.9):
            nulls[f"ar1_{rho}_mean_{mean}"] = autocorrelated(mean, 0.5, rho, streams=streams, requests=requests, seed=3)
    for name, values in nulls.items():
        rows.append(Row("online", f"drift_null_{name}", "false_alarm_ratio", _share(alarms(detector, values)), "ratio"))
    for sigma in (0.5, 1.0, 1.5):
        for factor in (1.2, 1.5, 2.0, 4.0):
            for at in (0, 1000, 5000):
                values = shifted(
                    lognormal(0.67, sigma),
                    lognormal(factor, sigma),
                    at=at,
                    streams=200,
                    requests=at + 5000,
                    seed=4,
                )
                rows += _delays(f"drift_x{factor}_sigma_{sigma}_after_{at}", alarms(detector, values), at)
        for mean in (0.8, 0.67, 0.5, 0.25):
            values = stream(lognormal(mean, sigma), streams=200, requests=5000, seed=5)
            rows += _delays(f"clear_x{mean}_sigma_{sigma}", clearings(detector, values))
        values = stream(lognormal(1.0, sigma), streams=streams, requests=2000, seed=6)
        rows.append(
            Row("online", f"clear_wrong_sigma_{sigma}", "cleared_ratio", _share(clearings(detector, values)), "ratio")
        )
    return rows


def quiet_rows(streams: int = 1000, requests: int = 10_000) -> list[Row]:
    """Of the alarm that learns its limit: false alarms and delays, of independent and of clustered requests."""
    detector = QuietDetector(alpha=SHARE)
    rows = []
    for sigma in (0.5, 1.0, 1.5):
        for rho in (0.0, 0.3, 0.6, 0.9):
            values = autocorrelated(1.0, sigma, rho, streams=streams, requests=requests, seed=32)
            share = _share(quiet_alarms(detector, values))
            rows.append(Row("online", f"quiet_null_ar1_{rho}_sigma_{sigma}", "false_alarm_ratio", share, "ratio"))
        for length in (100, 200, 400):
            for alike in (0.25, 1.0):
                values = runs(1.0, sigma, length, alike, streams=streams, requests=requests, seed=34)
                share, case = _share(quiet_alarms(detector, values)), f"quiet_null_runs_{length}_alike_{alike}"
                rows.append(Row("online", f"{case}_sigma_{sigma}", "false_alarm_ratio", share, "ratio"))
        for factor in (1.2, 2.0):
            for at in (1000, 2500, 5000):
                for rho in (0.0, 0.6):
                    like = autocorrelated(1.0, sigma, rho, streams=200, requests=at + 5000, seed=33)
                    values = (x_S * (1.0 if step < at else factor) for step, x_S in enumerate(like))
                    case = f"quiet_x{factor}_ar1_{rho}_sigma_{sigma}_after_{at}"
                    rows += _delays(case, quiet_alarms(detector, values), at)
    return rows


def recorded_rows(streams: int = 1000, requests: int = 10_000) -> list[Row]:
    """Both alarms on a deployment's recorded requests: false alarms, and delays if these, or a share of them, get worse
    after `CHANGE` requests."""
    found = read()
    usual, worse, limit = by_source(found, 4), by_source(found, 3), drift_limit(found)
    alike = Traffic(usual, 1, after=worse, share=1.0, at=0)
    mean, bad = alike.mean(changed=False), alike.mean(changed=True)
    detectors = {"drift": DriftDetector.new(limit, SHARE), "quiet": QuietDetector(alpha=SHARE)}
    rows = [
        Row("online", "recorded", name, value, unit)
        for name, value, unit in (
            ("requests", sum(map(len, usual)), "requests"),
            ("mean", mean, "nats"),
            ("deviation", float(np.concatenate(usual).std() / mean), "ratio"),
            ("drift_limit", limit / mean, "ratio"),
            ("three_bits", bad / mean, "ratio"),
        )
    ]
    for length in RUNS:
        same = Traffic(usual, length, after=usual, share=0.0, at=0)
        border = DriftDetector.new(mean, SHARE)
        for name, detector in (*detectors.items(), ("border", border)):
            share = _share(_found(detector, same.stream(streams=streams, requests=requests, seed=41)))
            rows.append(Row("online", f"recorded_{name}_null_runs_{length}", "false_alarm_ratio", share, "ratio"))
        for factor in (1.2, 2.0):
            changes = {
                "all": ([factor * values for values in usual], 1.0),
                "some": (worse, (factor - 1) * mean / (bad - mean)),
            }
            for change, (after, share) in changes.items():
                traffic = Traffic(usual, length, after=after, share=share, at=CHANGE)
                for name, detector in detectors.items():
                    values = traffic.stream(streams=200, requests=CHANGE + 5000, seed=42)
                    case = f"recorded_{name}_x{factor}_{change}_runs_{length}"
                    rows += _delays(case, _found(detector, values), CHANGE)
    return rows


def _found(detector: DriftDetector | QuietDetector, values: Iterable[Array]) -> NDArray[np.int64]:
    return (alarms if isinstance(detector, DriftDetector) else quiet_alarms)(detector, values)


def trial_rows(streams: int = 1000) -> list[Row]:
    """Wrong promotions and power, with an active profile of 0.3 nats, α = 0.01, at most 2000 requests."""
    level = 0.3
    trial = PairedTrial.new(level, 0.01)

    def gains(draw: Draw, seed: int, requests: int = trial.most) -> Iterator[Array]:
        return stream(draw, streams=streams, requests=requests, seed=seed)

    poisoned: dict[str, Draw] = {
        "equal": paired(0.0, level=level, sigma=0.7, own=0.3),
        "worse_10_percent": paired(-0.03, level=level, sigma=0.7, own=0.3),
        "twice": paired(-0.3, level=level, sigma=0.7, own=0.3),
        "good_but_for_10_percent": lambda rng, streams: np.where(rng.random(streams) < 0.1, -0.6, 0.6 / 9),
        "good_but_for_1_percent": lambda rng, streams: np.where(rng.random(streams) < 0.01, -1.2, 1.2 / 99),
        "tail_beyond_the_bound": lambda rng, streams: np.where(rng.random(streams) < 0.01, -20.0, 0.1),
    }
    rows = []
    for name, draw in poisoned.items():
        rows.append(
            Row("online", f"trial_{name}", "promoted_ratio", _share(promotions(trial, gains(draw, 11))), "ratio")
        )
        rows.append(
            Row("online", f"trial_{name}", "rejected_ratio", _share(rejections(trial, gains(draw, 11))), "ratio")
        )
    for share in (0.05, 0.1, 0.2, 0.3):
        draw = paired(share * level, level=level, sigma=0.7, own=0.3)
        rows += _delays(f"trial_better_{share}", promotions(trial, gains(draw, 12)))
    return rows


def rollback_rows(streams: int = 1000) -> list[Row]:
    """Wrong rollbacks over 10,000 requests and delays, with a raw model of 0.3 nats, α = 0.01."""
    level = 0.3
    guard = RollbackGuard.new(level, 0.01)

    def harm(mean: float) -> Draw:
        gain = paired(-mean, level=level, sigma=0.7, own=0.3)
        return lambda rng, streams: -gain(rng, streams)

    rows = [
        Row(
            "online",
            "rollback_equal",
            "rolled_back_ratio",
            _share(rollbacks(guard, stream(harm(0.0), streams=streams, requests=10_000, seed=21))),
            "ratio",
        )
    ]
    for times in (0.1, 0.3, 1.0, 3.0):
        for at in (0, 1000):
            harms = shifted(harm(-0.3 * level), harm(times * level), at=at, streams=200, requests=at + 3000, seed=22)
            rows += _delays(f"rollback_worse_{times}_after_{at}", rollbacks(guard, harms), at)
    rare = stream(lambda rng, n: np.where(rng.random(n) < 0.01, 20.0, -0.1), streams=200, requests=10_000, seed=23)
    rows += _delays("rollback_tail_beyond_the_bound", rollbacks(guard, rare))
    return rows


if __name__ == "__main__":
    write(FILE, [*drift_rows(), *quiet_rows(), *trial_rows(), *rollback_rows(), *recorded_rows()])
