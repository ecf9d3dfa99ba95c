"""Exchanges with replicas that misbehave in ways that vLLM does not on demand: a small HTTP server plays them."""

import asyncio
import json

import pytest
from starlette.responses import JSONResponse

from tests.unit.app.gateway.peers import ASKED, WHOLE, Peer, calling, event, of, serving, stream, whole


async def test_the_replica_gets_the_body_whole_and_what_is_ours(tmp_path):
    peer = Peer([whole(WHOLE)])
    async with serving(peer), calling(tmp_path, of(peer)) as http:
        given = {**ASKED, "top_k": 3, "unheard_of": {"a": [None]}, "vllm_xargs": {"mine": "x"}, "hemostat": {}}
        answer = await http.post("/v1/completions", json=given)
        assert answer.json()["model"] == "m"
        (sent,) = peer.asked
        extra = sent.pop("vllm_xargs")
        assert len(extra.pop("hemostat_request")) == 32
        assert extra == {"mine": "x", "hemostat_version": "identity"}
        assert sent == {"model": "inner", "prompt": "x", "top_k": 3, "unheard_of": {"a": [None]}}
        refused = await http.post("/v1/completions", json=ASKED | {"vllm_xargs": {"hemostat_version": "identity"}})
        assert refused.json()["error"]["param"] == "vllm_xargs"
        assert len(peer.asked) == 1


async def test_several_answers_of_a_deployment_that_is_greedy_never_reach_a_replica(tmp_path):
    peer = Peer([whole(WHOLE)])
    async with serving(peer), calling(tmp_path, of(peer, sampling={"temperature": 0})) as http:
        refused = await http.post("/v1/completions", json=ASKED | {"n": 2})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "n")
        assert "m has temperature 0 for requests that name none" in refused.json()["error"]["message"]
        assert peer.asked == []
        assert (await http.post("/v1/completions", json=ASKED | {"n": 2, "temperature": 1})).status_code == 200
        assert (await http.post("/v1/responses", json={"model": "m", "input": "x", "n": 2})).status_code != 400


@pytest.mark.parametrize("cut", [1, 7, 64])
async def test_events_come_whole_however_they_were_cut_on_the_way(tmp_path, cut):
    raw = b": hello\r\n\r\n" + (event("a") + event("b", "length") + b"data: [DONE]\n\n").replace(b"\n", b"\r\n")
    peer = Peer([stream(*(raw[at : at + cut] for at in range(0, len(raw), cut)))])
    async with serving(peer), calling(tmp_path, of(peer)) as http:
        answer = await http.post("/v1/completions", json=ASKED | {"stream": True})
    first, second, done, rest = answer.text.split("\n\n")
    assert [json.loads(part[6:])["choices"][0]["text"] for part in (first, second)] == ["a", "b"]
    assert (done, rest) == ("data: [DONE]", "")
    assert answer.headers["x-hemostat-calibration"] == "identity"


async def test_events_that_came_together_go_together_also_before_one_that_fails(tmp_path):
    many = b"".join(event(str(number)) for number in range(50))
    good = Peer([stream(many + event("end", "length") + b"data: [DONE]\n\n")])
    async with serving(good), calling(tmp_path / "good", of(good)) as http:
        answer = await http.post("/v1/completions", json=ASKED | {"stream": True})
    *events, done, rest = answer.text.split("\n\n")
    texts = [json.loads(part[6:])["choices"][0]["text"] for part in events]
    assert texts == [*map(str, range(50)), "end"]
    assert (done, rest) == ("data: [DONE]", "")
    bad = Peer([stream(many + b'data: {"error": {"message": "x", "code": 500}}\n\n' + event("never"))])
    async with serving(bad), calling(tmp_path / "bad", of(bad)) as http:
        answer = await http.post("/v1/completions", json=ASKED | {"stream": True})
    *events, failed, _ = answer.text.split("\n\n")
    assert [json.loads(part[6:])["choices"][0]["text"] for part in events] == texts[:50]
    assert json.loads(failed[6:])["error"]["code"] == "engine_failed"


@pytest.mark.parametrize(
    "bad", [whole({"error": {"message": "full", "code": 503}}, 503), whole(b"no json"), stream(RuntimeError("cut"))]
)
async def test_another_replica_is_asked_where_nothing_was_answered(tmp_path, bad, monkeypatch):
    monkeypatch.setattr("app.gateway.replicas.SHUNNED_S", 600.0)
    first, second = Peer([bad]), Peer([whole(WHOLE)])
    async with serving(first, second), calling(tmp_path, of(first, second)) as http:
        answer = await http.post("/v1/completions", json=ASKED)
        assert answer.status_code == 200
        assert (len(first.asked), len(second.asked)) == (1, 1)
        await http.post("/v1/completions", json=ASKED)
        assert len(first.asked) == 1, "it is left alone for a while"


async def test_what_took_too_long_is_not_begun_again(tmp_path):
    async def slow(_):
        await asyncio.sleep(60)
        return JSONResponse(WHOLE)

    first, second = Peer([slow]), Peer([whole(WHOLE)])
    async with serving(first, second), calling(tmp_path, of(first, second), gateway_answer_timeout_s=1.0) as http:
        answer = await http.post("/v1/completions", json=ASKED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "replica_unavailable")
    assert answer.headers["x-should-retry"] == "false"
    assert (len(first.asked), len(second.asked)) == (1, 0)


async def test_a_request_that_ends_replicas_does_not_end_all_of_them(tmp_path):
    peers = [Peer([stream(RuntimeError("died"))]) for _ in range(5)]
    async with serving(*peers), calling(tmp_path, of(*peers)) as http:
        answer = await http.post("/v1/completions", json=ASKED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "replica_unavailable")
    assert sum(len(peer.asked) for peer in peers) == 3


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/responses/r"),
        ("DELETE", "/v1/responses/r"),
        ("POST", "/v1/responses/r/cancel"),
        ("GET", "/v1/responses/r/input_items"),
    ],
)
async def test_no_response_is_there_to_be_read_deleted_or_cancelled(tmp_path, method, path):
    async with calling(tmp_path, of()) as http:
        answer = await http.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert "not stored" in answer.json()["error"]["message"]


async def test_a_body_beyond_the_gateways_own_limit_is_413(tmp_path):
    async with calling(tmp_path, of(), gateway_max_body_bytes=2000) as http:
        answer = await http.post("/v1/completions", json=ASKED | {"prompt": "x" * 2000})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
