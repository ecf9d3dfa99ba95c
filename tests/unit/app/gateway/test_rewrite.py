import json

import pytest

from app.gateway.rewrite import Rewriter
from app.gateway.sse import Event


def rewriter(route="chat", *, sampled=False, ids=False, usage=False, served="served"):
    return Rewriter(route, served=served, model="m-é", fingerprint="hemostat-x", sampled=sampled, ids=ids, usage=usage)


def chunk(**choice):
    made = {"index": 0, "delta": {"content": "a"}, "logprobs": None, "finish_reason": None, "token_ids": None}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "served", "choices": [made | choice]}


def compact(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def forwarded(maker, value):
    data = maker.event(Event(compact(value))).data
    return None if data is None else json.loads(data)


TRICKY = '"model":"served","choices":[{"finish_reason":"stop" \\" \u2028 \n'


@pytest.mark.parametrize(
    "value",
    [
        chunk(),
        chunk(delta={"content": TRICKY}),
        chunk(delta={"content": "x", "tool_calls": [{"function": {"arguments": TRICKY}}]}),
        chunk(logprobs={"content": [{"token": "a", "logprob": -1.1920928955078125e-07, "bytes": [97]}]}),
        chunk(finish_reason="length"),
        chunk() | {"system_fingerprint": "vllm-0.32"},
        chunk() | {"id": TRICKY},
        chunk() | {"usage": {"prompt_tokens": 1, "completion_tokens": 2}},
    ],
)
def test_nothing_changes_but_the_model_and_the_fingerprint(value):
    assert forwarded(rewriter(), value) == value | {"model": "m-é", "system_fingerprint": "hemostat-x"}
    spaced = json.dumps(value).encode()
    again = rewriter().event(Event(spaced)).data
    assert again is not None
    assert json.loads(again) == value | {"model": "m-é", "system_fingerprint": "hemostat-x"}


def test_the_quick_way_leaves_every_other_byte_as_it_was():
    value = chunk(logprobs={"content": [{"logprob": 0.1}]})
    raw = compact(value).replace(b"0.1", b"1.00e-1")
    data = rewriter().event(Event(raw)).data
    assert data is not None
    assert b"1.00e-1" in data


@pytest.mark.parametrize("value", [chunk(finish_reason="stop"), chunk(finish_reason="stop", delta={})])
def test_the_end_of_a_choice_is_seen(value):
    for raw in (compact(value), json.dumps(value).encode()):
        outcome = rewriter().event(Event(raw))
        assert (outcome.finished, outcome.forced) == (True, False)
    assert not rewriter().event(Event(compact(chunk()))).finished


@pytest.mark.parametrize(
    ("end", "forced"),
    [
        ({"finish_reason": "stop", "stop_reason": 2}, True),
        ({"finish_reason": "tool_calls", "stop_reason": 0}, True),
        ({"finish_reason": "error"}, True),
        ({"finish_reason": "stop", "stop_reason": None}, False),
        ({"finish_reason": "stop", "stop_reason": "###"}, False),
        ({"finish_reason": "length", "stop_reason": None}, False),
    ],
)
def test_an_end_at_a_stop_token_may_be_the_engines(end, forced):
    assert rewriter().event(Event(compact(chunk(**end)))).forced is forced
    whole = {"choices": [{"index": 0, "text": "a"}, {"index": 1, "text": "a"} | end]}
    assert rewriter("completions").answer(compact(whole))[1] is forced


def test_usage_reaches_only_who_asked_for_it():
    value = chunk() | {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}}
    silent, asked = rewriter(), rewriter(usage=True)
    assert forwarded(silent, value) is None
    assert forwarded(asked, value)["usage"]["total_tokens"] == 12
    for maker in (silent, asked):
        assert (maker.seen.prompt_tokens, maker.seen.completion_tokens) == (5, 7)


def test_token_ids_are_kept_here_and_hidden_from_who_did_not_ask():
    first = chunk(delta={"role": "assistant", "content": ""}) | {"prompt_token_ids": [1, 2]}
    events = [
        first,
        chunk(token_ids=[3]),
        chunk(delta={}, token_ids=[4]),
        chunk(token_ids=[5, 6], finish_reason="stop"),
    ]
    maker = rewriter(sampled=True)
    seen = [forwarded(maker, value) for value in events]
    assert (maker.seen.prompt_ids, maker.seen.output_ids) == ([1, 2], [3, 4, 5, 6])
    assert seen[2] is None, "without ids vLLM does not send a chunk that says nothing"
    for value in (seen[0], seen[1], seen[3]):
        assert value["choices"][0]["token_ids"] is None
    assert seen[0]["prompt_token_ids"] is None
    asked = rewriter(sampled=True, ids=True)
    told = [forwarded(asked, value) for value in events]
    assert told[0]["prompt_token_ids"] == [1, 2]
    assert [value["choices"][0]["token_ids"] for value in told[1:]] == [[3], [4], [5, 6]]
    assert asked.seen == maker.seen


def test_a_whole_answer():
    value = {
        "id": "c",
        "model": "served",
        "system_fingerprint": "vllm",
        "choices": [{"index": 0, "text": "a", "finish_reason": "stop", "prompt_token_ids": [1], "token_ids": [2]}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    }
    maker = rewriter("completions", sampled=True)
    body, forced = maker.answer(compact(value))
    assert not forced
    told = json.loads(body)
    assert (told["model"], told["system_fingerprint"]) == ("m-é", "hemostat-x")
    assert told["choices"] == [value["choices"][0] | {"prompt_token_ids": None, "token_ids": None}]
    assert (maker.seen.prompt_ids, maker.seen.output_ids, maker.seen.completion_tokens) == ([1], [2], 1)


def test_events_of_a_response():
    maker = rewriter("responses")
    delta = compact({"type": "response.output_text.delta", "delta": '"response":{ "error"', "sequence_number": 4})
    outcome = maker.event(Event(delta))
    assert (outcome.data, outcome.tokens) == (delta, True)
    inner = {"model": "served", "status": "completed", "usage": {"input_tokens": 3, "output_tokens": 4}}
    last = maker.event(Event(compact({"type": "response.completed", "response": inner})))
    assert last.data is not None
    assert json.loads(last.data)["response"] == inner | {"model": "m-é", "system_fingerprint": "hemostat-x"}
    assert (last.last, last.finished, last.forced) == (True, True, True)  # a response tells no stop token
    cut = maker.event(Event(compact({"type": "response.completed", "response": inner | {"status": "incomplete"}})))
    assert (cut.last, cut.finished, cut.forced) == (True, True, False)
    assert maker.seen.completion_tokens == 4


@pytest.mark.parametrize("route", ["chat", "completions", "responses"])
def test_an_error_is_no_chunk(route):
    outcome = rewriter(route).event(Event(b'{"error":{"message":"x","code":400}}'))
    assert (outcome.data, outcome.error) == (None, {"message": "x", "code": 400})


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'"a"'])
def test_what_is_no_object_is_refused(data):
    with pytest.raises(ValueError):
        rewriter().event(Event(data))
