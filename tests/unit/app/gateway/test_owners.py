"""Owners of keys beside each other at one deployment: places, tokens, grammars and caches."""

import asyncio
import json
import re
import time

import pytest
from starlette.responses import JSONResponse

from app.bodies import SMALL
from tests.support.keys import bearer
from tests.unit.app.gateway.peers import ASKED, WHOLE, Peer, calling, event, of, serving, stream, whole
from tests.unit.app.gateway.test_exchange_waiting import Held, until

PATH = "/v1/completions"
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


def formatted(number):
    schema = SCHEMA | {"title": str(number)}
    return ASKED | {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}}


async def asking(http, owner, **fields):
    return await http.post(PATH, json=ASKED | fields, headers=bearer(owner))


async def test_an_owner_at_the_limit_delays_no_other(tmp_path):
    held = Held()

    async def answer(body):
        return await held(body) if body["prompt"] == "greedy" else JSONResponse(WHOLE)

    peer = Peer([answer])
    async with serving(peer):
        limits = {"gateway_max_in_flight": 4, "gateway_max_queued": 8, "gateway_owner_share": 0.75}
        async with calling(tmp_path, of(peer), owners=("greedy", "modest"), **limits) as http:
            greedy = [asyncio.create_task(asking(http, "greedy", prompt="greedy")) for _ in range(40)]
            await until(lambda: len(peer.asked) == 3)
            await until(lambda: sum(task.done() for task in greedy) == 40 - 3 - 6)
            refused = next(task.result() for task in greedy if task.done())
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
            assert int(refused.headers["retry-after"]) >= 1
            # Three places are held by requests that never end, six more wait: the other owner waits for none of them.
            answers = [await asking(http, "modest", prompt="x") for _ in range(20)]
            assert {one.status_code for one in answers} == {200}
            assert sum(body["prompt"] == "greedy" for body in peer.asked) == 3
            held.go.set()
            statuses = [(await task).status_code for task in greedy]
            assert (statuses.count(200), statuses.count(429)) == (9, 31)


async def test_tokens_are_counted_by_owner_also_of_a_stream_that_was_left(tmp_path):
    usage = WHOLE | {"usage": {"prompt_tokens": 60, "completion_tokens": 30}}
    peer = Peer([whole(usage), stream(event(), event(), 60.0)])
    async with serving(peer), calling(tmp_path, of(peer), owners=("a", "b"), owner_tokens_per_minute=100) as http:
        left = [(await asking(http, "a")).headers["x-ratelimit-remaining-tokens"]]

        async def leaving():
            await asking(http, "b", stream=True)

        task = asyncio.create_task(leaving())
        await until(lambda: len(peer.asked) == 2)
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        left.append((await http.get("/metrics", headers=bearer("a"))).text)
        assert left[0] == "100"
        assert 'hemostat_owner_tokens_total{owner="a"} 90.0' in left[1]
        (paid,) = re.findall(r'hemostat_owner_tokens_total{owner="b"} (.*)', left[1])
        assert float(paid) == 2 + len(json.dumps(peer.asked[1], separators=(",", ":")))
        peer.answers = [whole(usage)]
        assert [(await asking(http, "a")).status_code for _ in range(2)] == [200, 429]
        assert (await asking(http, "b")).status_code == 429


async def test_who_leaves_before_the_first_token_pays_the_prompt(tmp_path):
    held = Held()
    peer = Peer([held])
    async with serving(peer), calling(tmp_path, of(peer), owners=("a", "b"), owner_tokens_per_minute=1000) as http:
        for owner, streamed in (("a", False), ("b", True)):
            before = len(peer.asked)
            task = asyncio.create_task(asking(http, owner, prompt="x" * 5000, stream=streamed))
            await until(lambda before=before: len(peer.asked) > before)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert (await asking(http, owner)).status_code == 429
        held.go.set()


@pytest.mark.parametrize("ends", ["left", "time-out"])
async def test_an_answer_that_nobody_saw_is_paid_by_the_time_that_it_ran(tmp_path, ends):
    """The first answer shows 100 tokens in half a second; two sequences run for a second."""
    held = Held()

    async def shows(_):
        await asyncio.sleep(0.5)
        return JSONResponse(WHOLE | {"usage": {"prompt_tokens": 0, "completion_tokens": 100}})

    peer, timeout_s = Peer([shows, held]), 1.0 if ends == "time-out" else 60.0
    async with (
        serving(peer),
        calling(tmp_path, of(peer), owners=("a", "b"), gateway_answer_timeout_s=timeout_s) as http,
    ):
        assert (await asking(http, "a")).status_code == 200
        paid = []
        for most in (10_000, 50):
            before, began = await tokens_of(http, "b"), time.perf_counter()
            asked = asyncio.create_task(asking(http, "b", n=2, max_tokens=most))
            if ends == "left":
                await until(lambda: len(peer.asked) == 2 + len(paid))
                await asyncio.sleep(1.0)
                asked.cancel()
                await asyncio.gather(asked, return_exceptions=True)
            else:
                assert (await asked).status_code == 503
            lasted = time.perf_counter() - began
            prompt = len(json.dumps(peer.asked[-1], separators=(",", ":")))
            paid.append(await tokens_of(http, "b") - before - prompt)
            assert 2 * 50 <= paid[-1] <= 2 * min(most, 200 * lasted), "200 tokens per second at most"
        held.go.set()
    assert paid[0] > paid[1]


async def tokens_of(http, owner):
    told = (await http.get("/metrics", headers=bearer(owner))).text
    found = re.findall(rf'hemostat_owner_tokens_total{{owner="{owner}"}} (.*)', told)
    return float(found[0]) if found else 0.0


async def test_who_is_refused_pays_no_prompt(tmp_path):
    peer = Peer([whole({"error": {"message": "too long"}}, 400)])
    async with serving(peer), calling(tmp_path, of(peer), owners=("a",), owner_tokens_per_minute=1000) as http:
        answers = [await asking(http, "a", prompt="x" * 5000) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [400, 400]


async def test_an_owner_has_so_many_new_grammars_at_one_time_and_known_ones_at_will(tmp_path):
    held = Held()
    peer = Peer([held])
    async with serving(peer), calling(tmp_path, of(peer), owners=("a", "b"), gateway_owner_grammars=2) as http:

        def ask(owner, number):
            return asyncio.create_task(http.post(PATH, json=formatted(number), headers=bearer(owner)))

        tasks = [ask("a", number) for number in range(5)]
        await until(lambda: len(peer.asked) == 2)
        tasks += [ask("b", 7), asyncio.create_task(asking(http, "a"))]
        await until(lambda: len(peer.asked) == 4)  # another owner, and a request without a grammar
        await asyncio.sleep(0.2)
        assert len(peer.asked) == 4
        held.go.set()
        assert {(await task).status_code for task in tasks} == {200}
        held.go.clear()
        before = len(peer.asked)
        tasks = [ask("a", 3) for _ in range(6)]
        await until(lambda: len(peer.asked) == before + 6)
        held.go.set()
        await asyncio.gather(*tasks)


async def test_owners_share_no_prefix_cache(tmp_path):
    peer = Peer([whole(WHOLE)])
    async with serving(peer), calling(tmp_path, of(peer), owners=("a", "b")) as http:
        for owner, salt in (("a", None), ("b", None), ("a", None), ("a", "x"), ("b", "x"), ("a", "b:")):
            await asking(http, owner, **({} if salt is None else {"cache_salt": salt}))
    salts = [body["cache_salt"] for body in peer.asked]
    assert salts[0] == salts[2]
    assert len(set(salts)) == 5
    assert all(len(salt) <= 128 and salt.isalnum() for salt in salts)  # what vLLM takes


async def test_without_keys_a_salt_is_the_clients(tmp_path):
    peer = Peer([whole(WHOLE)])
    async with serving(peer), calling(tmp_path, of(peer)) as http:
        await http.post(PATH, json=ASKED)
        await http.post(PATH, json=ASKED | {"cache_salt": "mine"})
    assert [body.get("cache_salt") for body in peer.asked] == [None, "mine"]


async def test_an_owner_asks_so_much_about_tokens_at_one_time(tmp_path):
    held = Held()
    peer = Peer([whole(WHOLE)])
    peer.tokenizing = held.go.wait
    async with serving(peer), calling(tmp_path, of(peer), owners=("a", "b")) as http:

        def ask(owner):
            return asyncio.create_task(http.post("/tokenize", json=ASKED, headers=bearer(owner)))

        tasks = [ask("a") for _ in range(12)]
        await until(lambda: peer.tokenized == 8)
        tasks.append(ask("b"))
        await until(lambda: peer.tokenized == 9)
        await asyncio.sleep(0.2)
        assert peer.tokenized == 9
        held.go.set()
        assert {(await task).status_code for task in tasks} == {200}


@pytest.mark.parametrize(("path", "senders"), [("/v1/diagnosis/jobs", 8), (PATH, 40)])
async def test_slow_senders_with_one_key_delay_no_large_body_of_another_owner(tmp_path, path, senders):
    begun, goes_on, json = 0, asyncio.Event(), {"content-type": "application/json"}

    async def dawdling():
        nonlocal begun
        yield b"x" * (SMALL + 1)
        begun += 1
        await goes_on.wait()

    peer = Peer([])
    async with serving(peer), calling(tmp_path, of(peer), owners=("slow", "quick")) as http:
        slow = [
            asyncio.create_task(http.post(path, content=dawdling(), headers=json | bearer("slow")))
            for _ in range(senders)
        ]
        await until(lambda: begun == 1)
        async with asyncio.timeout(30):
            answer = await http.post(path, content=b"x" * (2 * SMALL), headers=json | bearer("quick"))
        assert answer.status_code in (400, 422), "it was read, and is no JSON"
        assert not any(task.done() for task in slow)
        goes_on.set()
        assert {(await task).status_code for task in slow} == {answer.status_code}
