"""Verified decoding as an OpenAI answer: blocks of a verify process that a test plays."""

import json

import pytest

from tests.unit.app.gateway.peers import WHOLE, Peer, calling, of, serving, stream, whole
from tests.unit.app.gateway.test_replicas import deployment, replica

BLOCKS = (
    b'{"token_ids": [5, 6], "text": "Hel"}\n{"token_ids": [7], "te',
    b'xt": "lo"}\n',
    b'{"finish_reason": "stop", "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}, '
    b'"acceptance_rate": 0.75, "tokens_per_reference_pass": 3.5}\n',
)
TALK = {"model": "m", "messages": [{"role": "user", "content": "x"}], "hemostat": {"verify": True}}


def verified(door, serve, **fields):
    runs = {"role": "verify", "url": door.url} | fields
    return deployment(replica("s", url=serve.url), replica("v", **runs), verify=True)


async def test_verified_blocks_become_openais_answers(tmp_path):
    door, serve = Peer([stream(*BLOCKS)]), Peer([whole(WHOLE)])
    async with serving(door, serve), calling(tmp_path, verified(door, serve)) as http:
        answer = await http.post("/v1/chat/completions", json=TALK | {"temperature": 0.5, "seed": 1, "n": 1})
        said = answer.json()
        assert said["choices"][0]["message"]["content"] == "Hello"
        assert said["usage"]["total_tokens"] == 6
        assert said["hemostat"] == {"verified": True, "acceptance_rate": 0.75, "tokens_per_reference_pass": 3.5}
        assert answer.headers["x-hemostat-calibration"] == "verified"
        assert said["system_fingerprint"] == "hemostat-x-none-verified"
        asked = {"prompt": [1, 2, 3], "max_tokens": 97, "fewer": True, "temperature": 0.5, "seed": 1}
        assert door.asked == [asked]
        streamed = await http.post("/v1/chat/completions", json=TALK | {"stream": True})
        *events, done, _ = streamed.text.split("\n\n")
        chunks = [json.loads(one.removeprefix("data: ")) for one in events]
        assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "Hello"
        assert chunks[-1]["hemostat"]["acceptance_rate"] == 0.75
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
        assert done == "data: [DONE]"
        text = await http.post(
            "/v1/completions", json={"model": "m", "prompt": "x", "max_tokens": 5, "hemostat": {"verify": True}}
        )
        assert text.json()["choices"][0]["text"] == "Hello"
    assert serve.asked == []


async def test_where_the_self_test_failed_it_is_501_with_the_reason(tmp_path):
    door, serve = Peer([whole({})]), Peer([whole(WHOLE)])
    failed = verified(door, serve, state="failed", reason="chi-square 812 of 49 degrees")
    async with serving(door, serve), calling(tmp_path, failed) as http:
        answer = await http.post("/v1/chat/completions", json=TALK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (501, "verify_unavailable")
    assert "chi-square 812" in answer.json()["error"]["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert door.asked == []


async def test_where_verification_is_not_switched_on_the_501_says_how(tmp_path):
    serve = Peer([whole(WHOLE)])
    async with serving(serve), calling(tmp_path, of(serve)) as http:
        answer = await http.post("/v1/chat/completions", json=TALK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (501, "verify_unavailable")
    assert "hemostat deploy create" in answer.json()["error"]["message"]
    assert "--verify" in answer.json()["error"]["message"]
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"state": "starting", "reason": "self-test: 3 of 8"}, "self-test: 3 of 8"),
        ({"state": "starting"}, "is starting"),
        ({"role": "shadow"}, "does not run"),
    ],
)
async def test_while_verification_starts_it_is_503_and_worth_another_attempt(tmp_path, fields, reason):
    door, serve = Peer([whole({})]), Peer([whole(WHOLE)])
    async with serving(door, serve), calling(tmp_path, verified(door, serve, **fields)) as http:
        answer = await http.post("/v1/chat/completions", json=TALK)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (503, "replica_unavailable")
    assert reason in error["message"]
    assert "Leave" not in error["message"]
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["x-should-retry"] == "true"


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (whole({"reason": "it has ended"}, 501), 503, "replica_unavailable"),
        (whole({"reason": "busy"}, 503), 503, "replica_unavailable"),
        (whole({"detail": "…", "code": "context_exceeded"}, 400), 400, "context_exceeded"),
        (stream(b'{"error": "the reference\'s logits are not finite"}\n'), 500, "nonfinite_logits"),
        (stream(BLOCKS[0]), 503, "replica_unavailable"),
        (stream(b"no json\n"), 503, "replica_unavailable"),
    ],
)
async def test_a_verify_process_that_fails(tmp_path, answer, status, code):
    door, serve = Peer([answer]), Peer([whole(WHOLE)])
    async with serving(door, serve), calling(tmp_path, verified(door, serve)) as http:
        got = await http.post("/v1/chat/completions", json=TALK)
    assert (got.status_code, got.json()["error"]["code"]) == (status, code)
    if code == "context_exceeded":
        assert got.json()["error"]["param"] == "messages"


@pytest.mark.parametrize(
    "more",
    [{"n": 2}, {"logprobs": True}, {"tools": [{}]}, {"logit_bias": {"1": 1}}, {"frequency_penalty": 0.1}, {"new": 1}],
)
async def test_what_would_change_the_promised_distribution_is_refused(tmp_path, more):
    async with calling(tmp_path, of()) as http:
        answer = await http.post("/v1/chat/completions", json=TALK | more)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(more)))
