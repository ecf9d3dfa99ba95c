"""Redis beyond its high-water mark: chat goes on, and samples are dropped."""

from tests.integration.app.deployments.asking import until
from tests.integration.app.gateway.conftest import Service

MEMORY = 64 * 1024**2


async def test_chat_is_answered_while_redis_has_no_room_for_jobs_and_samples(service: Service) -> None:
    made = await service.deploy("full", shadow_rate=1.0, shadow_tokens_per_second=1e6)
    async with service.store() as store, service.openai(max_retries=0) as client, service.http() as http:
        redis = store.client
        await client.completions.create(model="full", prompt="some words of a prompt", max_tokens=2)
        try:
            await redis.config_set("maxmemory", MEMORY)
            for number in range(54):
                await redis.set(f"of somebody else: {number}", b"x" * 1024**2)
            ready = await http.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
            assert [name for name, check in ready.json()["checks"].items() if not check["ok"]] == ["jobs"]
            before = service.metric("hemostat_shadow_dropped_total", deployment="full", reason="unavailable")
            for _ in range(3):
                answer = await client.completions.create(model="full", prompt="some words of a prompt", max_tokens=2)
                assert answer.choices
                await store.renew(made.id, service.replica())

            async def dropped() -> bool:  # samples are queued behind the answers
                now = service.metric("hemostat_shadow_dropped_total", deployment="full", reason="unavailable")
                return now == before + 3

            await until(dropped)
        finally:
            await redis.config_set("maxmemory", 0)
            for number in range(54):
                await redis.delete(f"of somebody else: {number}")
        assert (await client.completions.create(model="full", prompt="some words of a prompt", max_tokens=2)).choices
