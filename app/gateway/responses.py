"""What of the Responses API needs state, or tools of the server's, and is refused: this service keeps nothing."""

from typing import Any, Final

from app.gateway.errors import invalid

_STATE: Final = {
    "previous_response_id": "responses are not stored, so none can be continued; send the whole input",
    "conversation": "conversations are not stored; send the whole input",
    "prompt": "prompt templates are not stored; send the whole input",
    "previous_input_messages": "send the whole conversation as `input`",
}
_TOOLS: Final = ("function",)


def check(body: dict[str, Any]) -> None:
    """Raises ApiError (400), naming the field and the reason."""
    if body.get("store"):
        raise invalid("`store` is true, but responses are not stored: leave it out or send false.", "store")
    if body.get("background"):
        raise invalid(
            "`background` is true, but responses are not stored: wait for the answer, or stream it.", "background"
        )
    for name, reason in _STATE.items():
        if body.get(name) is not None:
            raise invalid(f"`{name}` is not taken: {reason}.", name)
    for number, tool in enumerate(body.get("tools") or ()):
        if isinstance(tool, dict) and tool.get("type") not in _TOOLS:
            raise invalid("Only tools of type function are taken: the service runs none itself.", f"tools[{number}]")
