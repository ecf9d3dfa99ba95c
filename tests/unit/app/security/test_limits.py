from hypothesis import given
from hypothesis import strategies as st

from app.security.limits import TokenBuckets


def take(buckets, client):
    wait = buckets.wait(client)
    if not wait:
        buckets.charge(client, 1)
    return wait


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_a_full_bucket_gives_its_tokens_then_says_how_long_to_wait():
    clock = Clock()
    buckets = TokenBuckets(6, clock=clock)
    assert [take(buckets, "a") for _ in range(6)] == [0] * 6
    assert take(buckets, "a") == 10
    assert take(buckets, "b") == 0
    clock.now += 9.9
    assert take(buckets, "a") == 1
    clock.now += 0.2
    assert take(buckets, "a") == 0
    assert take(buckets, "a") == 10


@given(per_minute=st.integers(1, 600), waits=st.lists(st.floats(0, 5), min_size=1, max_size=200))
def test_never_more_than_the_capacity_and_the_rate_allow(per_minute, waits):
    clock = Clock()
    buckets = TokenBuckets(per_minute, clock=clock)
    taken = 0
    for wait in waits:
        clock.now += wait
        taken += take(buckets, "a") == 0
    assert taken <= per_minute + per_minute / 60 * sum(waits) + 1e-6


@given(per_minute=st.integers(1, 600), burst=st.integers(0, 50))
def test_whoever_waits_as_told_is_let_in(per_minute, burst):
    clock = Clock()
    buckets = TokenBuckets(per_minute, clock=clock)
    for _ in range(per_minute + burst):
        clock.now += take(buckets, "a")
    wait = take(buckets, "a")
    clock.now += wait
    assert wait == 0 or take(buckets, "a") == 0


def test_the_number_of_clients_is_bounded():
    buckets = TokenBuckets(1, clients=3, clock=Clock())
    for client in "abcd":
        assert take(buckets, client) == 0
    assert take(buckets, "d") > 0
    assert take(buckets, "a") == 0


def test_a_debt_is_paid_back_before_the_next_token_is_there():
    clock = Clock()
    buckets = TokenBuckets(60, clock=clock)
    buckets.charge("a", 90)
    assert (buckets.left("a"), buckets.left("b")) == (0, 60)
    assert buckets.wait("a") == 31
    clock.now += 31
    assert buckets.wait("a") == 0
    assert buckets.left("a") == 1
    clock.now += 3600
    assert buckets.left("a") == 60
