import asyncio

import pytest
from prometheus_client import CollectorRegistry
from redis.exceptions import ConnectionError as RedisConnectionError

from app.contracts.deployment import ShadowSample
from app.gateway.rewrite import Seen
from app.gateway.shadow import Budget, Sampler, eligible
from app.telemetry.gateway import GatewayMetrics
from tests.unit.app.gateway.test_replicas import deployment


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Queue:
    def __init__(self):
        self.held: list[ShadowSample] = []
        self.room = 10
        self.away = False
        self.slow = asyncio.Event()
        self.slow.set()

    async def push_sample(self, deployment_id, sample):
        await self.slow.wait()
        if self.away:
            raise RedisConnectionError
        if len(self.held) >= self.room:
            return False
        self.held.append(sample)
        return True


def counted(registry, reason=None):
    if reason is None:
        return registry.get_sample_value("hemostat_shadow_sampled_total", {"deployment": "m"}) or 0
    return registry.get_sample_value("hemostat_shadow_dropped_total", {"deployment": "m", "reason": reason}) or 0


SEEN = Seen(prompt_ids=[1, 2], output_ids=[3, 4, 5])


async def test_a_share_of_the_requests_is_drawn():
    draws = iter([0.0, 0.099, 0.1, 0.5, 0.999])
    sampler = Sampler(Queue(), GatewayMetrics(CollectorRegistry()), draw=lambda: next(draws))
    served = deployment(shadow_rate=0.1, shadow_tokens_per_second=1000)
    assert [sampler.wants(served) for _ in range(5)] == [True, True, False, False, False]
    never = Sampler(Queue(), GatewayMetrics(CollectorRegistry()), draw=lambda: 0.0)
    assert not never.wants(deployment(shadow_rate=0.0, shadow_tokens_per_second=1000))


async def test_a_sample_is_queued_behind_the_answer():
    queue, registry = Queue(), CollectorRegistry()
    sampler = Sampler(queue, GatewayMetrics(registry), draw=lambda: 0.0)
    served = deployment(shadow_rate=1, shadow_tokens_per_second=1000)
    queue.slow.clear()
    assert sampler.wants(served)
    sampler.done(served, "abc", "cal-000000000000000a", {"temperature": 0.5, "top_p": None, "top_k": -1}, SEEN)
    await asyncio.sleep(0)
    assert queue.held == [], "the caller did not wait"
    queue.slow.set()
    await sampler.close()
    (sample,) = queue.held
    assert (sample.id, sample.prompt, sample.output, sample.hidden) == ("abc", (1, 2), (3, 4, 5), "hidden/abc.bin")
    assert (sample.version, sample.temperature, sample.top_p, sample.top_k) == ("cal-000000000000000a", 0.5, 1.0, 0)
    assert counted(registry) == 1


async def test_what_is_not_queued_is_counted_with_its_reason():
    queue, registry = Queue(), CollectorRegistry()
    sampler = Sampler(queue, GatewayMetrics(registry), draw=lambda: 0.0)
    served = deployment(shadow_rate=1, shadow_tokens_per_second=1000)
    queue.room = 0
    sampler.done(served, "a", "identity", {}, SEEN)
    await sampler.close()
    queue.away = True
    sampler.done(served, "b", "identity", {}, SEEN)
    await sampler.close()
    sampler.done(served, "c", "identity", {}, Seen(prompt_ids=[1]))
    await sampler.close()
    assert [counted(registry, reason) for reason in ("queue_full", "unavailable", "failed")] == [1, 1, 1]
    assert counted(registry) == 0
    assert not sampler.wants(deployment(shadow_rate=1, shadow_tokens_per_second=0, id="dep_2"))
    assert counted(registry, "budget") == 1


def test_the_budget_holds_over_any_stretch_of_time():
    clock = Clock()
    budget = Budget(clock)
    spent = 0
    for step in range(10_000):
        clock.now = step * 0.1
        if budget.open(50.0):
            budget.charge(120)
            spent += 120
        assert spent <= 50.0 * (clock.now + 10) + 120 + 1e-6
    assert spent >= 0.95 * 50.0 * clock.now, "and it is used"


@pytest.mark.parametrize(
    ("route", "body", "can"),
    [
        ("chat", {"messages": []}, True),
        ("chat", {"n": 1, "best_of": None}, True),
        ("chat", {"n": 2}, False),
        ("completions", {"prompt": "a"}, True),
        ("completions", {"prompt": ["a"]}, True),
        ("completions", {"prompt": [1, 2, 3]}, True),
        ("completions", {"prompt": ["a", "b"]}, False),
        ("completions", {"prompt": "a", "echo": True}, False),
        ("completions", {"prompt": "a", "best_of": 3}, False),
        ("chat", {"use_beam_search": True}, False),
        ("responses", {"input": "a"}, False),
    ],
)
def test_only_single_sequences_can_be_scored_again(route, body, can):
    assert eligible(route, body) is can
