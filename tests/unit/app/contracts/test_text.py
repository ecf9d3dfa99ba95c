"""Documents as others write them: conversations in the form of OpenAI's API."""

from typing import Any

import pytest
from openai.types.chat import ChatCompletionMessage
from pydantic import ValidationError

from app.contracts.text import Document, Message, ToolCall

_CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


def test_a_conversation_as_the_openai_client_dumps_it_is_a_document():
    called = ChatCompletionMessage.model_validate({"role": "assistant", "content": None, "tool_calls": [_CALL]})
    said = ChatCompletionMessage.model_validate({"role": "assistant", "content": "It is 2."})
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "What is 1 + 1?"},
        called.model_dump(),
        {"role": "tool", "tool_call_id": "call_1", "content": "2"},
        said.model_dump(),
    ]
    assert Document.model_validate({"id": "1", "messages": messages}).messages == (
        Message(role="user", content="What is 1 + 1?"),
        Message(role="assistant", tool_calls=(ToolCall(name="add", arguments={"a": 1}),)),
        Message(role="tool", content="2"),
        Message(role="assistant", content="It is 2."),
    )


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None},
        {"role": "user", "content": None},
        {"role": "user", "content": "Hi.", "tool_call_id": "call_1"},
        {"role": "assistant", "content": "No.", "refusal": "I may not."},
        {"role": "assistant", "content": "No.", "tool_cals": None},
    ],
)
def test_a_message_without_a_word_or_with_what_would_be_lost_is_refused(message):
    with pytest.raises(ValidationError):
        Message.model_validate(message)
