"""The recent window against the intervals of the same tokens one by one."""

import random

import numpy as np
import pytest

from workers.calibration.online.window import RecentWindow, ScoredRequest, WindowMemory
from workers.distributions.intervals import Clusters

WINDOW = RecentWindow(most=40, most_age_s=1000)
A, B = "cal-" + "a" * 16, "cal-" + "b" * 16


def request(index: int, *, engine: bool = True, version: str = A) -> tuple[ScoredRequest, dict[str, np.ndarray]]:
    """One request, and the tokens that it was summed from."""
    rng = np.random.default_rng(index)
    tokens = int(rng.integers(1, 60))
    raw = 0.3 * rng.lognormal(size=tokens) * rng.lognormal(0, 0.5)
    tokenwise = {
        "raw": raw,
        "calibrated": raw * rng.uniform(0.5, 1.0, tokens),
        "engine": 1e-3 * rng.lognormal(size=tokens),
        "top1_raw": rng.random(tokens) < 0.7,
        "top1_calibrated": rng.random(tokens) < 0.8,
    }
    sums = {name: float(values.sum()) for name, values in tokenwise.items()}
    scored = ScoredRequest(
        at=float(index),
        version=version,
        tokens=tokens,
        raw=sums["raw"],
        calibrated=sums["calibrated"],
        engine=sums["engine"] if engine else None,
        top1_raw=int(sums["top1_raw"]),
        top1_calibrated=int(sums["top1_calibrated"]),
    )
    return scored, tokenwise


def filled(requests: list[ScoredRequest], window: RecentWindow = WINDOW) -> WindowMemory:
    memory = window.start()
    for each in requests:
        memory = window.add(memory, each)
    return memory


def test_means_and_intervals_are_those_of_the_tokens_clustered_by_request() -> None:
    pairs = [request(index) for index in range(30)]
    found = WINDOW.divergence(filled([scored for scored, _ in pairs]), resamples=10_000)
    label = np.repeat(np.arange(30), [scored.tokens for scored, _ in pairs])

    def joined(name: str) -> np.ndarray:
        return np.concatenate([tokenwise[name] for _, tokenwise in pairs]).astype(float)

    raw, calibrated = joined("raw"), joined("calibrated")
    estimates = Clusters(label, "documents").means([raw, calibrated, joined("engine"), raw - calibrated])
    assert found.engine is not None
    for interval, estimate in zip((found.raw, found.calibrated, found.engine, found.saved), estimates, strict=True):
        width = estimate.interval[1] - estimate.interval[0]
        assert interval.mean == pytest.approx(estimate.mean)
        # Other draws of clusters: both limits agree to the noise of 10,000 resamples.
        assert interval.low == pytest.approx(estimate.interval[0], abs=0.04 * width)
        assert interval.high == pytest.approx(estimate.interval[1], abs=0.04 * width)
    assert found.top1_agreement_raw == pytest.approx(joined("top1_raw").mean())
    assert found.top1_agreement_calibrated == pytest.approx(joined("top1_calibrated").mean())
    assert (found.requests, found.tokens) == (30, len(raw))


def test_the_order_in_which_requests_came_does_not_matter() -> None:
    requests = [request(index)[0].model_copy(update={"at": 0.0}) for index in range(30)]
    shuffled = random.Random(0).sample(requests, 30)
    assert WINDOW.divergence(filled(requests)) == WINDOW.divergence(filled(shuffled))


def test_the_oldest_go_by_number_and_by_age() -> None:
    requests = [request(index)[0] for index in range(50)]
    assert filled(requests).requests == tuple(requests[10:])
    memory = filled(requests, RecentWindow(most=40, most_age_s=5))
    assert [each.at for each in memory.requests] == [44, 45, 46, 47, 48, 49]
    assert RecentWindow(most=40, most_age_s=5).at(memory, 100.0).requests == ()


def test_a_version_is_asked_for_alone() -> None:
    requests = [request(index, version=A if index % 3 else B)[0] for index in range(30)]
    found = WINDOW.divergence(filled(requests), version=B)
    assert found == WINDOW.divergence(filled([each for each in requests if each.version == B]))
    assert found.requests == 10


def test_the_engine_term_rests_on_the_requests_that_have_one() -> None:
    some = [request(index, engine=index < 12)[0] for index in range(30)]
    found = WINDOW.divergence(filled(some))
    alone = WINDOW.divergence(filled(some[:12]))
    assert found.engine == alone.engine
    none = WINDOW.divergence(filled([request(index, engine=index == 0)[0] for index in range(30)]))
    assert none.engine is None


def test_two_requests_are_needed() -> None:
    assert WINDOW.divergence(WINDOW.start()) is None
    assert WINDOW.divergence(filled([request(0)[0]])) is None
    assert WINDOW.divergence(filled([request(0)[0], request(1)[0]])) is not None


def test_no_lower_limit_is_below_zero_but_that_of_what_was_saved() -> None:
    """Two very unlike requests: Student's t with one degree of freedom is wider than the mean."""
    pair = [
        ScoredRequest(at=0, version=A, tokens=10, raw=raw, calibrated=1.0, top1_raw=1, top1_calibrated=1)
        for raw in (0.1, 9.0)
    ]
    found = WINDOW.divergence(filled(pair))
    assert found.raw.low == 0
    assert found.saved.low < 0
