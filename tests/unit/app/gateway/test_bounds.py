import pytest

from app.gateway.bounds import check
from app.gateway.errors import ApiError


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"n": 16, "best_of": 16, "max_tokens": 0, "top_logprobs": 20, "logprobs": True},
        {"n": None, "max_tokens": None, "stop": None, "logit_bias": None, "stream": None, "tools": None},
        {"logprobs": 20, "prompt_logprobs": 0, "truncate_prompt_tokens": -1},
        {"temperature": 0, "top_p": 1, "min_p": 0.5, "top_k": -1, "seed": -(2**63), "repetition_penalty": 1.2},
        {"temperature": 2.0, "top_k": 2**31 - 1, "seed": 2**63 - 1, "presence_penalty": -2, "frequency_penalty": 2},
        {"stop": "x" * 256},
        {"stop": ["x"] * 16},
        {"logit_bias": {str(token): 1 for token in range(1024)}},
        {"prompt": ["a"] * 128},
        {"prompt": ["a"] * 8, "n": 16},
        {"prompt": [1] * 5000, "n": 16},
        {"messages": [{"role": "user", "content": "image_url"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": []}]},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}]},
        {"input": [{"type": "function_call_output", "call_id": "c", "output": "a"}], "modalities": ["text"]},
        {"input": "text", "something_of_vllms": {"deep": [1]}},
    ],
)
def test_what_is_within_the_limits_passes(body):
    check(body)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": 17}, "n"),
        ({"n": 0}, "n"),
        ({"n": "3"}, "n"),
        ({"n": True}, "n"),
        ({"n": 2.0}, "n"),
        ({"best_of": 17}, "best_of"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_completion_tokens": 10**9}, "max_completion_tokens"),
        ({"max_output_tokens": 10**300}, "max_output_tokens"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"logprobs": "5"}, "logprobs"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"temperature": "0.5"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"min_p": [0.1]}, "min_p"),
        ({"top_k": "5"}, "top_k"),
        ({"top_k": 10**300}, "top_k"),
        ({"top_k": 2**31}, "top_k"),
        ({"seed": 2**63}, "seed"),
        ({"seed": -(2**63) - 1}, "seed"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"repetition_penalty": "1"}, "repetition_penalty"),
        ({"stream": 1}, "stream"),
        ({"stream": "true"}, "stream"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": "x" * 257}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"stop": {"a": 1}}, "stop"),
        ({"logit_bias": {str(token): 1 for token in range(1025)}}, "logit_bias"),
        ({"logit_bias": []}, "logit_bias"),
        ({"prompt": ["a"] * 129}, "prompt"),
        ({"prompt": ["a"] * 9, "n": 16}, "n"),
        ({"prompt": [[1, 2]] * 129}, "prompt"),
        ({"messages": [{}] * 2049}, "messages"),
        ({"messages": {}}, "messages"),
        ({"input": [{}] * 2049}, "input"),
        ({"stop_token_ids": [1] * 257}, "stop_token_ids"),
        ({"bad_words": ["a"] * 257}, "bad_words"),
        ({"prompt_embeds": "AAAA"}, "prompt_embeds"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"kv_transfer_params": {"remote_host": "x"}}, "kv_transfer_params"),
        ({"messages": [{"role": "assistant", "audio": {"id": "x"}}]}, "messages[0].audio"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
    ],
)
def test_what_is_beyond_is_refused_by_name(body, param):
    with pytest.raises(ApiError) as caught:
        check(body)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert len(caught.value.detail) < 200


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://x"}},
        {"type": "input_audio", "input_audio": {}},
        {"type": "file", "file": {}},
        {"type": "whatever"},
        {"type": ["text"]},
        {"image_url": "http://x"},
        {"type": "text", "text": "a", "image_url": "http://x"},
    ],
)
@pytest.mark.parametrize("place", ["messages", "input"])
def test_only_text_is_taken(part, place):
    with pytest.raises(ApiError) as caught:
        check({place: [{"role": "system", "content": "a"}, {"role": "user", "content": [{"type": "text"}, part]}]})
    assert caught.value.param == f"{place}[1].content[1]"
