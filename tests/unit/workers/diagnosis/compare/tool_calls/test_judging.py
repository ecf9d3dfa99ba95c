"""Answers by hand: what is a call, and what fits its tool."""

import json

import pytest

from app.contracts.text import Tool
from workers.diagnosis.compare.tool_calls.judging import judge

TOOLS = (
    Tool.model_validate(
        {
            "type": "function",
            "function": {
                "name": "book",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "people": {"type": "integer", "minimum": 1},
                        "time": {"type": "string"},
                        "place": {"$ref": "#/$defs/place"},
                    },
                    "required": ["people"],
                    "additionalProperties": False,
                    "$defs": {"place": {"enum": ["in", "out"]}},
                },
            },
        }
    ),
    Tool(name="anything"),
    Tool.model_validate(
        {
            "name": "open_ticket",
            "parameters": {
                "type": "object",
                "properties": {"type": {"enum": ["bug", "wish"]}, "title": {"type": "string"}, "properties": {}},
            },
        }
    ),
    Tool(name="far", parameters={"$ref": "http://127.0.0.1:9/schema.json"}),
)


def call(name, **arguments):
    return json.dumps({"name": name, "arguments": arguments})


@pytest.mark.parametrize(
    "answer",
    [
        call("book", people=2),
        f"<tool_call>\n{call('book', people=2, place='out')}\n</tool_call>",
        f"Sure: [{call('book', people=1)}, {call('anything', x=[1])}]",
        '{"name": "book", "parameters": {"people": 3}}',
        call("anything"),
        '{"name": "open_ticket", "parameters": {"type": "bug", "title": "x"}}',
        '{"name": "open_ticket", "parameters": {"properties": ["a"]}}',
        '{"name": "book", "description": "A table for three.", "arguments": {"people": 3}}',
        '{"name": "anything", "arguments": {"x": ' + "1" * 5000 + "}}",
    ],
)
def test_valid_calls(answer):
    assert judge(answer, TOOLS).valid


@pytest.mark.parametrize(
    ("answer", "parsable", "reason"),
    [
        ("I would book a table.", False, "there is no call"),
        ('{"name": "book", "arguments": {"people": 2', False, "no whole call"),
        ('{"people": 2}', False, "no whole call"),
        (call("reserve", people=2), True, "names no tool"),
        (call("book"), True, "required"),
        (call("book", people="two"), True, "type at people"),
        (call("book", people=0), True, "minimum at people"),
        (call("book", people=1, secret="words"), True, "additionalProperties"),
        (call("book", people=1, place="up"), True, "enum at place"),
        (call("book", people=1) + call("reserve"), True, "names no tool"),
        (call("far", a=1), True, "cannot be followed"),
        (call("anything", x=float("nan")), False, "no whole call"),
        (call("anything", x=float("-inf")), False, "no whole call"),
        (json.dumps({"name": "open_ticket", "parameters": TOOLS[2].parameters}), False, "no whole call"),
        ('{"name": "open_ticket", "parameters": {"type": "noise"}}', True, "enum at type"),
        ('{"name": "book", "arguments": {"people": ' + "9" * 5000 + "}}", True, "type at people"),
    ],
)
def test_what_is_wrong_is_named_without_the_answer_s_words(answer, parsable, reason):
    found = judge(answer, TOOLS)
    assert not found.valid
    assert found.parsable == parsable
    assert reason in found.reason
    assert "secret" not in found.reason
    assert "words" not in found.reason
