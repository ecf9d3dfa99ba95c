"""Limits of schemas, grammars, tools, biases and template arguments: at the limit passes, one beyond is a 400."""

import json
from typing import Any

import pytest

from app.gateway.bounds import check
from app.gateway.errors import ApiError, envelope


def schema(properties=1, enum=1):
    return {
        "type": "object",
        "properties": {f"p{number}": {"type": "integer"} for number in range(properties - 1)}
        | {"e": {"enum": list(range(enum))}},
    }


def answering(inner):
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": inner}}}


def tool(parameters, name="f", **more):
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


def nested(levels):
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def sized(size):
    """An object of exactly so many bytes as compact JSON."""
    return {"a": "x" * (size - len('{"a":""}'))}


WITHIN: list[dict[str, Any]] = [
    answering(schema(512, 1000)),
    {"response_format": {"type": "text"}},
    {"response_format": sized(65_536)},
    {"response_format": nested(32)},
    {"structured_outputs": {"json": schema(512)}},
    {"structured_outputs": {"json": json.dumps(schema(512))}},
    {"structured_outputs": {"json": "no JSON: the replica says so"}},
    {"structured_outputs": {"regex": "a" * 4096}},
    {"structured_outputs": {"grammar": "a" * 16_384}},
    {"structured_outputs": {"choice": ["x" * 200] * 256}},
    {"structured_outputs": {"choice": ["x" * 1024]}},
    {"text": {"format": {"type": "json_schema", "schema": schema(512)}}},
    {"tools": [tool(schema(512))] * 3},
    {"tools": [tool(schema(512))] * 3, "tool_choice": "auto"},
    {"tools": [tool(schema(256, 500))] * 4, "tool_choice": "required"},
    {"tools": [tool(schema(256), strict=True)] * 4 + [tool(schema(512))]},
    {"tools": [{"type": "function", "name": "n" * 64, "parameters": schema()}]},
    {"tools": [tool({}, description="é" * 30_000)]},
    {"chat_template_kwargs": {f"k{number}": True for number in range(32)}},
    {"chat_template_kwargs": sized(16_384)},
    {"chat_template_kwargs": nested(8)},
    {"logit_bias": {"0": -100, "4294967295": 100, "7": 0.5}},
    {"bad_words": ["x" * 256], "user": "u" * 512, "request_id": None},
    {"tool_choice": "auto", "stream_options": {"include_usage": True}, "vllm_xargs": {"a": [1, 2]}},
]

BEYOND: list[tuple[dict[str, Any], str, str]] = [
    (answering(schema(513)), "response_format", "513 properties"),
    (answering({"$defs": {"a": schema(300), "b": {"anyOf": [schema(300)]}}}), "response_format", "600 properties"),
    (answering({"patternProperties": {str(number): {} for number in range(513)}}), "response_format", "513 properties"),
    (answering(schema(2, 1001)), "response_format", "1001 values"),
    ({"response_format": sized(65_537)}, "response_format", "65537 bytes"),
    ({"response_format": nested(33)}, "response_format", "33 levels"),
    ({"text": {"format": {"schema": schema(513)}}}, "text", "513 properties"),
    ({"structured_outputs": {"json": schema(513)}}, "structured_outputs.json", "has 513 properties in all"),
    ({"structured_outputs": {"json": json.dumps(schema(513))}}, "structured_outputs.json", "513 properties"),
    (
        {"structured_outputs": {"structural_tag": json.dumps(nested(33))}},
        "structured_outputs.structural_tag",
        "nested 33 levels deep",
    ),
    ({"structured_outputs": {"regex": "a" * 4097}}, "structured_outputs.regex", "4097 characters"),
    ({"structured_outputs": {"grammar": "a" * 16_385}}, "structured_outputs.grammar", "16385 characters"),
    ({"structured_outputs": {"whitespace_pattern": "a" * 5000}}, "structured_outputs.whitespace_pattern", "5000"),
    ({"structured_outputs": {"choice": ["x"] * 257}}, "structured_outputs.choice", "257 entries"),
    ({"structured_outputs": {"choice": ["a", "x" * 1025]}}, "structured_outputs.choice[1]", "1025 characters"),
    ({"tools": [tool({}), tool(schema(513))]}, "tools[1]", "513 properties"),
    ({"tools": [tool(schema(512))] * 2 + [tool(schema())], "tool_choice": "required"}, "tools", "1025 properties"),
    ({"tools": [tool(schema(512), strict=True)] * 2}, "tools", "take too long to compile"),
    ({"tools": [tool(schema(1, 1000))] * 3, "tool_choice": "required"}, "tools", "3000 values"),
    ({"tools": [tool(schema(400), strict=True)] * 3}, "tools", "1200 properties"),
    (
        {"tools": [{"type": "function", "name": "f", "strict": True, "parameters": schema(400)}] * 3},
        "tools",
        "1200 properties",
    ),
    ({"tools": [tool({}, name="n" * 65)]}, "tools[0].function.name", "65 characters"),
    ({"tools": [{"type": "function", "name": "n" * 65}]}, "tools[0].name", "65 characters; at most 64"),
    ({"tools": [tool({}, description="é" * 33_000)]}, "tools[0]", "bytes as JSON; at most 65536"),
    ({"tools": [tool({}, description="x" * 60_000)] * 5}, "tools", "bytes as JSON; at most 262144 are taken."),
    ({"tools": [{}] * 129}, "tools", "129 entries"),
    ({"chat_template_kwargs": {f"k{number}": True for number in range(33)}}, "chat_template_kwargs", "33 entries"),
    ({"chat_template_kwargs": [1]}, "chat_template_kwargs", "`chat_template_kwargs` is not an object."),
    ({"chat_template_kwargs": sized(16_385)}, "chat_template_kwargs", "16385 bytes as JSON; at most 16384"),
    ({"chat_template_kwargs": nested(9)}, "chat_template_kwargs", "nested 9 levels deep; at most 8"),
    (
        {"allowed_token_ids": [5], "structured_outputs": {"regex": "a"}},
        "allowed_token_ids",
        "may leave no token to draw",
    ),
    ({"logit_bias": {"5": 101}}, "logit_bias", "`logit_bias` of token 5 is 101; it must be from -100 to 100."),
    ({"logit_bias": {"5": "1"}}, "logit_bias", "`logit_bias` of token 5 is not a number."),
    ({"logit_bias": {"5": True}}, "logit_bias", "`logit_bias` of token 5 is not a number."),
    ({"logit_bias": {"the": 1}}, "logit_bias", "`logit_bias` names 'the', which is no token id."),
    ({"logit_bias": {"-1": 1}}, "logit_bias", "which is no token id."),
    ({"logit_bias": {"9" * 11: 1}}, "logit_bias", "which is no token id."),
    ({"bad_words": ["a", "x" * 257]}, "bad_words[1]", "257 characters; at most 256"),
    ({"user": "u" * 513}, "user", "513 characters"),
    ({"vllm_xargs": sized(16_385)}, "vllm_xargs", "16385 bytes"),
    ({"tool_choice": sized(16_385)}, "tool_choice", "16385 bytes"),
]


def test_at_the_limit_passes():
    for body in WITHIN:
        check(body)


def test_beyond_it_is_a_400_of_openais_shape():
    wrong = []
    for body, param, told in BEYOND:
        with pytest.raises(ApiError) as caught:
            check(body)
        error = envelope(caught.value)["error"]
        shape = caught.value.status, error["type"], error["code"], error["param"]
        if shape != (400, "invalid_request_error", "invalid_request", param) or told not in error["message"]:
            wrong.append((param, told, error))
    assert wrong == []


def test_a_constraint_that_vllm_no_longer_has_is_not_ignored():
    with pytest.raises(ApiError) as caught:
        check({"guided_json": {"type": "object"}})
    error = envelope(caught.value)["error"]
    assert error["param"] == "guided_json"
    assert error["message"].endswith('Give `structured_outputs`: {"json": …}.')
    with pytest.raises(ApiError):
        check({"guided_decoding_backend": "outlines"})
    check({"guided_json": None})
