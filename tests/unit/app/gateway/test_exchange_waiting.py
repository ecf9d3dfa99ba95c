"""Requests that wait: for room at a replica, and for one that becomes ready."""

import asyncio

from starlette.responses import JSONResponse

from tests.unit.app.gateway.peers import ASKED, WHOLE, Peer, calling, of, serving, whole
from tests.unit.app.gateway.test_directory import Store
from tests.unit.app.gateway.test_replicas import deployment, replica

# Where a replica got one request too many, the others would wait for good.


async def test_what_waits_and_what_is_under_way_can_be_seen(tmp_path):
    release = asyncio.Event()

    async def slow(_):
        await release.wait()
        return JSONResponse(WHOLE)

    peer = Peer([slow])
    served = of(peer)
    async with serving(peer):
        served = of(peer)
        async with calling(tmp_path, served, gateway_max_in_flight=2, gateway_max_queued=1) as http:

            async def shown():
                text = (await http.get("/metrics")).text
                return tuple(
                    line.rpartition(" ")[2]
                    for line in text.splitlines()
                    if line.startswith(("hemostat_gateway_in_flight_requests{", "hemostat_gateway_queued_requests{"))
                )

            tasks = [asyncio.create_task(http.post("/v1/completions", json=ASKED)) for _ in range(3)]
            async with asyncio.timeout(90):
                while await shown() != ("2.0", "1.0"):  # noqa: ASYNC110 - it is polled, as Prometheus does
                    await asyncio.sleep(0.02)
            refused = await http.post("/v1/completions", json=ASKED)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
            release.set()
            assert [answer.status_code for answer in await asyncio.gather(*tasks)] == [200, 200, 200]
            assert await shown() == ("0.0", "0.0")


A = "cal-000000000000000a"


class Held:
    """Answers that wait until they are let go."""

    def __init__(self):
        self.go = asyncio.Event()

    async def __call__(self, _):
        await self.go.wait()
        return JSONResponse(WHOLE)


async def until(done):
    async with asyncio.timeout(30):
        while not done():  # noqa: ASYNC110 - it is what is counted that is waited for
            await asyncio.sleep(0.01)


async def test_a_request_that_waited_goes_by_what_is_so_when_its_turn_comes(tmp_path):
    """The version was rolled back meanwhile, its replica replaced by another one."""
    held = Held()
    first, second = Peer([held]), Peer([whole(WHOLE)])
    async with serving(first, second):
        versions = ("identity", A)
        old, new = replica("old", url=first.url, versions=versions), replica("new", url=second.url, versions=versions)
        store = Store(deployment(old, active_version=A))
        async with calling(tmp_path, store, gateway_max_in_flight=1) as http:
            tasks = [asyncio.create_task(http.post("/v1/completions", json=ASKED)) for _ in range(3)]
            await until(lambda: len(first.asked) == 1)
            store.held = [deployment(new)]
            store.changes += 1
            held.go.set()
            answers = await asyncio.gather(*tasks)
    assert [answer.headers["x-hemostat-calibration"] for answer in answers] == [A, "identity", "identity"]
    assert (len(first.asked), len(second.asked)) == (1, 2)


async def test_waiting_requests_go_to_a_replica_that_becomes_ready_and_each_has_no_more_than_it_takes(tmp_path):
    held = Held()
    first, second = Peer([held]), Peer([held])
    async with serving(first, second):
        one, two = (replica(peer.url[-5:], url=peer.url) for peer in (first, second))
        store = Store(deployment(one))
        async with calling(tmp_path, store, gateway_max_in_flight=2) as http:
            tasks = [asyncio.create_task(http.post("/v1/completions", json=ASKED)) for _ in range(6)]
            await until(lambda: len(first.asked) == 2)
            store.held = [deployment(one, two, replicas=2)]
            await until(lambda: len(second.asked) == 2)  # nobody else asks for the list
            assert len(first.asked) == 2
            held.go.set()
            assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200}
    assert len(first.asked) + len(second.asked) == 6


async def test_requests_that_only_one_replica_can_answer_wait_for_that_one(tmp_path):
    held = Held()
    first, second = Peer([held]), Peer([whole(WHOLE)])
    async with serving(first, second):
        served = deployment(replica("a", url=first.url, versions=("identity", A)), replica("b", url=second.url))
        asked = ASKED | {"hemostat": {"calibration": A}}
        async with calling(tmp_path, served, gateway_max_in_flight=2, gateway_queue_timeout_s=0.5) as http:
            tasks = [asyncio.create_task(http.post("/v1/completions", json=asked)) for _ in range(2)]
            await until(lambda: len(first.asked) == 2)
            turned = await http.post("/v1/completions", json=asked)
            assert (turned.status_code, turned.json()["error"]["code"]) == (503, "replica_unavailable")
            assert "became free" in turned.json()["error"]["message"]
            held.go.set()
            assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200}
        held.go.clear()
        async with calling(tmp_path, served, gateway_max_in_flight=2, gateway_queue_timeout_s=600.0) as http:
            tasks = [asyncio.create_task(http.post("/v1/completions", json=asked)) for _ in range(3)]
            await until(lambda: len(first.asked) == 4)
            await asyncio.sleep(0.1)
            assert len(first.asked) == 4
            held.go.set()
            assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200}
    assert second.asked == []
