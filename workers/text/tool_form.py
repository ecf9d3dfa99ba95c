"""Tools and their calls written into plain messages, for chat templates that have no place for them.

The form is the one that most models without a template of their own were shown (Hermes). Tools in the system message,
a call as JSON between <tool_call> tags, a result between <tool_response> tags.
"""

import json
from collections.abc import Sequence
from typing import Any

from app.contracts.text import Message, Tool, ToolCall

_ASK = (
    "You may call these functions. To call one, answer with a JSON object of its name and arguments between "
    "<tool_call></tool_call> tags, one for each call:\n<tool_call>\n"
    '{"name": <name>, "arguments": <object>}\n</tool_call>\n<tools>\n'
)


def with_tools(messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[Message, ...]:
    """The conversation with the tools in its system message, after what it says already."""
    told = _ASK + "\n".join(_json(tool_schema(tool)) for tool in tools) + "\n</tools>"
    if messages and messages[0].role == "system":
        first = Message(role="system", content=f"{messages[0].content}\n\n{told}".lstrip())
        return (first, *messages[1:])
    return (Message(role="system", content=told), *messages)


def with_calls(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The conversation with each call in the content of its message, and each result as the user's."""
    return tuple(_plain(message) for message in messages)


def tool_schema(tool: Tool) -> dict[str, Any]:
    """The tool as templates and APIs take it."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _plain(message: Message) -> Message:
    if message.role == "tool":
        return Message(role="user", content=f"<tool_response>\n{message.content}\n</tool_response>")
    if message.tool_calls is None:
        return message
    parts = [message.content] if message.content.strip() else []
    return Message(role=message.role, content="\n".join([*parts, *map(_call, message.tool_calls)]))


def _call(call: ToolCall) -> str:
    return f"<tool_call>\n{_json({'name': call.name, 'arguments': call.arguments})}\n</tool_call>"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
