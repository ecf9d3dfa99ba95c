"""Streams of recorded requests: runs about one source, and what changes in them."""

import numpy as np
import pytest

from tests.bench.online_requests import PEOPLE, Recorded, Traffic, by_source, drift_limit, read

USUAL = [np.asarray([1.0]), np.asarray([2.0, 2.0]), np.asarray([4.0])]
WORSE = [10 * values for values in USUAL]


def test_a_run_is_about_one_source_and_each_stream_begins_within_one() -> None:
    traffic = Traffic(USUAL, 5, after=USUAL, share=0.0, at=0)
    values_TS = np.stack(list(traffic.stream(streams=2000, requests=100, seed=1)))
    changed_TS = values_TS[1:] != values_TS[:-1]
    # A run ends at every fifth request of its stream, and the next one has another source with 1 - Σ p² = 5/8.
    assert changed_TS.mean() == pytest.approx(5 / 8 / 5, rel=0.05)
    ends_S = [set(np.flatnonzero(changed_T) % 5) for changed_T in changed_TS.T]
    assert all(len(ends) <= 1 for ends in ends_S)
    assert set.union(*ends_S) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("length", [1, 5])
def test_a_share_of_the_requests_changes_from_one_on(length: int) -> None:
    traffic = Traffic(USUAL, length, after=WORSE, share=0.25, at=40)
    values_TS = np.stack(list(traffic.stream(streams=4000, requests=80, seed=2)))
    assert traffic.mean(changed=False) == pytest.approx((1 + 2 + 2 + 4) / 4)
    assert traffic.mean(changed=True) == pytest.approx(0.75 * 2.25 + 0.25 * 22.5)
    assert set(np.unique(values_TS[:40])) == {1, 2, 4}
    assert values_TS[:40].mean() == pytest.approx(traffic.mean(changed=False), rel=0.03)
    assert values_TS[40:].mean() == pytest.approx(traffic.mean(changed=True), rel=0.03)
    assert (values_TS[40:] >= 10).mean() == pytest.approx(0.25, abs=0.01)


def test_the_drift_limit_counts_tokens_of_people_alone() -> None:
    """Documents of 1 and of 3 nats, the latter with three times the tokens: 2.5 nats, and an upper limit above it."""
    rows = [Recorded(4, PEOPLE, 10, 1.0), Recorded(4, PEOPLE, 30, 3.0)] * 20
    limit = drift_limit([*rows, Recorded(4, "chat", 1000, 100.0), Recorded(3, "chat", 1000, 100.0)])
    assert 1.5 * 2.5 < limit < 1.5 * 3.0
    assert drift_limit([Recorded(4, PEOPLE, 10, 2.0)] * 20) == pytest.approx(3.0)


def test_what_was_recorded_is_some_hundred_requests_of_each_candidate() -> None:
    rows = read()
    for bits in (4, 3):
        kept = by_source(rows, bits)
        assert sum(map(len, kept)) > 400
        assert all((values > 0).all() and np.isfinite(values).all() for values in kept)
