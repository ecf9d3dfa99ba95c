"""How answers end: broken streams, engines that died or ended a request by force, errors, what is too large."""

import json

import pytest

from app.gateway.sse import Parser
from tests.unit.app.gateway.peers import ASKED, CHUNK, WHOLE, Peer, calling, event, of, serving, stream, whole
from tests.unit.app.gateway.test_replicas import deployment, replica


@pytest.mark.parametrize(
    "end",
    [RuntimeError("cut"), b"", b"data: {no json\n\n", b'data: {"error": {"message": "x", "code": 500}}\n\n', 30.0],
)
async def test_a_stream_that_breaks_ends_with_an_error_and_is_not_begun_again(tmp_path, end):
    first, second = Peer([stream(event(), end)]), Peer([whole(WHOLE)])
    async with serving(first, second), calling(tmp_path, of(first, second), gateway_read_timeout_s=2.0) as http:
        answer = await http.post("/v1/completions", json=ASKED | {"stream": True})
    assert answer.status_code == 200
    parts = answer.text.strip().split("\n\n")
    assert len(parts) == 2
    assert json.loads(parts[-1].removeprefix("data: "))["error"]["code"] in {"replica_unavailable", "engine_failed"}
    assert second.asked == []


FAILED = {"error": {"message": "Internal server error", "code": 500}}


DEAD = {"error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "code": 500}}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("dead", [True, False])
async def test_an_error_of_a_replica_whose_engine_is_dead_is_not_taken_for_the_requests(
    tmp_path, dead, streamed, monkeypatch
):
    """Its HTTP side lives on for a while, and has the least in flight: it would be chosen again and again."""
    monkeypatch.setattr("app.gateway.replicas.SHUNNED_S", 600.0)
    failing = stream(f"data: {json.dumps(DEAD)}\n\ndata: [DONE]\n\n".encode()) if streamed else whole(DEAD, 500)
    well = stream(event("a", "length") + b"data: [DONE]\n\n") if streamed else whole(WHOLE)
    first, second = Peer([failing], health=503 if dead else 200), Peer([well])
    async with serving(first, second), calling(tmp_path, of(first, second, replicas=2)) as http:
        answers = [await http.post("/v1/completions", json=ASKED | {"stream": streamed}) for _ in range(3)]
    if dead:
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        assert (len(first.asked), len(second.asked)) == (1, 3), "and it is left alone"
    else:
        assert {answer.json()["error"]["code"] for answer in answers} == {"engine_failed"}
        assert second.asked == []


@pytest.mark.parametrize("dead", [True, False])
async def test_a_question_that_a_replica_fails_goes_to_another_where_the_engine_is_dead(tmp_path, dead):
    first, second = Peer([whole(WHOLE)], health=503 if dead else 200, tokenizes=500), Peer([whole(WHOLE)])
    async with serving(first, second), calling(tmp_path, of(first, second, replicas=2)) as http:
        answer = await http.post("/tokenize", json={"model": ASKED["model"], "prompt": "a"})
    assert answer.status_code == (200 if dead else 500)


def long_answer(reason, stop=None):
    choice = {"index": 0, "text": "a b c d", "finish_reason": reason, "stop_reason": stop}
    return {**CHUNK, "choices": [choice], "usage": {"completion_tokens": 4}}


@pytest.mark.parametrize(
    ("answer", "asked", "doubtful"),
    [
        (whole(long_answer("stop", 2)), {}, True),
        (whole(long_answer("stop")), {}, False),
        (whole(long_answer("stop", "###")), {}, False),
        (whole(long_answer("error")), {}, True),
        (whole(long_answer("length")), {"ignore_eos": True}, False),
        (whole(long_answer("length")), {"use_beam_search": True}, True),
        (whole(WHOLE), {}, False),
        (whole(WHOLE), {"prompt_logprobs": 0}, True),  # its one token was drawn before the prompt's rows were seen
        (whole(WHOLE), {"echo": True}, True),
        (whole(FAILED, 500), {}, True),  # vLLM ends a request so whose grammar forbids the end
        (stream(*[event()] * 4, event("a", "stop", 2), b"data: [DONE]\n\n"), {"stream": True}, True),
        (stream(*[event()] * 4, event("a", "stop"), b"data: [DONE]\n\n"), {"stream": True}, False),
        (stream(event("a", "length"), b"data: [DONE]\n\n"), {"stream": True}, False),
        (stream(event("a", "length"), b"data: [DONE]\n\n"), {"stream": True, "echo": True}, True),
        (stream(event(), f"data: {json.dumps(FAILED)}\n\n".encode()), {"stream": True}, True),
    ],
)
async def test_the_engine_is_asked_where_it_may_have_forced_the_end(tmp_path, answer, asked, doubtful):
    for broken in (False, True):
        peer = Peer([answer], broken=broken)
        async with serving(peer):
            served = deployment(replica("r", url=peer.url, engine_url=peer.url))
            async with calling(tmp_path, served) as http:
                told = await http.post("/v1/completions", json=ASKED | asked)
        assert peer.doubted == doubtful
        assert ("nonfinite_logits" in told.text) is (broken and doubtful)


LAST = stream(event("b", "stop", 2), b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("answer", "asked", "told"),
    [
        (whole(long_answer("stop", 2)), {}, "cannot tell"),
        (LAST, {"stream": True}, "cannot tell"),
        (whole(long_answer("length")), {"echo": True}, "cannot tell"),
        (whole(long_answer("length")), {"echo": True, "stop_token_ids": [2]}, "cannot tell"),
        (whole(long_answer("stop", 2)), {"stop_token_ids": [2]}, ""),  # it explains the end
        (LAST, {"stream": True, "stop_token_ids": [2]}, ""),
        (whole(long_answer("length")), {}, ""),  # nobody has to be asked
        (whole(FAILED, 500), {}, "failed on this request"),
    ],
)
async def test_an_end_that_the_engine_may_have_forced_is_no_answer_while_it_cannot_be_asked(
    tmp_path, answer, asked, told
):
    peer = Peer([answer])
    async with serving(peer):
        served = deployment(replica("r", url=peer.url, engine_url="http://127.0.0.1:9"))
        async with calling(tmp_path, served) as http:
            got = await http.post("/v1/completions", json=ASKED | asked)
    if not told:
        assert (got.status_code, "error" in got.text) == (200, False)
        return
    assert told in got.json()["error"]["message"]
    if told == "cannot tell":
        assert (got.status_code, got.json()["error"]["code"]) == (503, "replica_unavailable")
        assert got.headers["x-should-retry"] == "true"


async def test_an_engine_that_ended_a_request_for_another_reason_says_which(tmp_path):
    reason = "its calibration version is not loaded"
    peer = Peer([whole(long_answer("stop", 2))], broken=True, reason=reason)
    async with serving(peer):
        served = deployment(replica("r", url=peer.url, engine_url=peer.url))
        async with calling(tmp_path, served) as http:
            got = await http.post("/v1/completions", json=ASKED)
    assert (got.status_code, got.json()["error"]["code"]) == (503, "replica_unavailable")
    assert reason in got.json()["error"]["message"]
    assert "broken" not in got.text


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_that_is_too_large_is_the_requests_fault_and_not_computed_again(
    tmp_path, streamed, monkeypatch
):
    monkeypatch.setattr("app.gateway.upstream.MAX_ANSWER_BYTES", 1 << 20)
    monkeypatch.setattr("app.gateway.exchange.Parser", lambda: Parser(1 << 20))
    large = {**long_answer("length"), "prompt_logprobs": "x" * (2 << 20)}
    answer = stream(f"data: {json.dumps(large)}\n\n".encode()) if streamed else whole(large)
    first, second = Peer([answer, whole(WHOLE)]), Peer([whole(WHOLE)])
    async with serving(first, second), calling(tmp_path, of(first, second, replicas=2)) as http:
        got = await http.post("/v1/completions", json=ASKED | {"stream": streamed})
        assert (got.status_code, got.json()["error"]["code"]) == (400, "invalid_request")
        assert got.headers["x-should-retry"] == "false"
        assert "Ask for fewer" in got.json()["error"]["message"]
        await http.post("/v1/completions", json=ASKED)
    assert (len(first.asked), len(second.asked)) == (2, 0), "and the replica is not left alone"


async def test_an_error_as_first_event_is_an_error_with_its_status(tmp_path):
    told = b'data: {"error": {"message": "bad thing", "code": 400, "param": "stop"}}\n\n'
    peer = Peer([stream(told)])
    async with serving(peer), calling(tmp_path, of(peer)) as http:
        answer = await http.post("/v1/completions", json=ASKED | {"stream": True})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "stop")
