"""Redis beyond its high-water mark: chat goes on, and samples are dropped."""

from tests.integration.app.deployments.asking import until
from tests.integration.app.gateway.conftest import Service

MEMORY = 64 * 1024**2


async def test_chat_is_answered_while_redis_has_no_room_for_jobs_and_samples(service: Service) -> None:
    made = await service.deploy("full", shadow_rate=1.0, shadow_tokens_per_second=1e6)
    async with service.store() as store, service.openai(max_retries=0) as client, service.http() as http:

        async def ask() -> None:
            answer = await client.completions.create(model="full", prompt="some words of a prompt", max_tokens=2)
            assert answer.choices
            await store.renew(made.id, service.replica())

        def dropped() -> float:
            return service.metric("hemostat_shadow_dropped_total", deployment="full", reason="unavailable")

        async def refusing() -> bool:  # the API reads the memory once a second
            await ask()
            ready = await http.get("/readyz")
            assert ready.status_code == 200
            failing = [name for name, check in ready.json()["checks"].items() if not check["ok"]]
            return (ready.json()["status"], failing, dropped() > 0) == ("degraded", ["jobs"], True)

        async def three_more_are_dropped() -> bool:  # samples are queued behind the answers
            return dropped() >= before + 3

        await ask()
        try:
            await store.client.config_set("maxmemory", MEMORY)
            for number in range(54):
                await store.client.set(f"of somebody else: {number}", b"x" * 1024**2)
            await until(refusing)
            before = dropped()
            for _ in range(3):
                await ask()
            await until(three_more_are_dropped)
        finally:
            await store.client.config_set("maxmemory", 0)
            for number in range(54):
                await store.client.delete(f"of somebody else: {number}")
        await ask()
