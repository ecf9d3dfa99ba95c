"""What is refused before tool calls are generated."""

import json
from typing import Any

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.jobs.parsing import parse_submission
from app.kinds.compare.plan import check_tool_calls
from app.kinds.compare.request import CompareRequest, ToolCallRun

DOCUMENT: dict[str, Any] = {"id": "d", "messages": [{"role": "user", "content": "a"}], "scored": "all"}
TOOLS = [{"name": "add", "parameters": {}}]


def asked(given):
    base = {"kind": "compare", "reference": {"model": "a"}, "self_check": True, "candidate": {"model": "a"}}
    found = parse_submission(json.dumps(base | {"generate_tool_calls": given}).encode())
    assert isinstance(found, CompareRequest)
    return found.generate_tool_calls


def test_true_takes_the_shipped_conversations():
    found = asked(True)
    assert found is not None
    assert found.text.model_dump()["corpus"] == "classes"
    assert asked(False) is None
    assert asked(None) is None


def refused(*given):
    with pytest.raises(HemostatError) as caught:
        check_tool_calls(*given)
    return caught.value.code, caught.value.pointer


def test_texts_without_tools_are_refused(tiny):
    for text, place in (
        ({"source": "shipped", "corpus": "classes"}, ""),
        ({"source": "file", "path": "a.jsonl"}, ""),
        ({"source": "inline", "documents": [DOCUMENT | {"tools": TOOLS}]}, ""),
        ({"source": "inline", "documents": [DOCUMENT]}, "/documents"),
        ({"source": "shipped"}, "/source"),
        ({"source": "self"}, "/source"),
        ({"source": "hub", "dataset": "a/b"}, "/source"),
    ):
        run = asked({"text": text})
        if place:
            at = f"/generate_tool_calls/text{place}"
            assert refused(run, tiny("llama")) == (ErrorCode.INVALID_REQUEST, at)
        else:
            check_tool_calls(run, tiny("llama"))


def test_answers_leave_place_for_their_prompts(tiny):
    check_tool_calls(ToolCallRun(max_tokens=127), tiny("llama"), 128)
    at = "/generate_tool_calls/max_tokens"
    assert refused(ToolCallRun(max_tokens=128), tiny("llama"), 128) == (ErrorCode.WINDOW_TOO_LARGE, at)


def test_a_tokenizer_without_chat_template_is_refused(copy):
    folder = copy()
    (folder / "chat_template.jinja").unlink()
    assert refused(ToolCallRun(), folder) == (ErrorCode.CHAT_TEMPLATE_MISSING, "/generate_tool_calls")
