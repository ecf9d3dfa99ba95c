"""What is changed in an answer: `model` and `system_fingerprint`, and what the gateway itself had asked for, taken out.

The gateway asks for usage in streams (it counts tokens) and, for requests that are scored again, for token ids. Neither
reaches a client that did not ask for it: the answer is the one that the replica would have given without.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from app.gateway.sse import Event

Route = Literal["chat", "completions", "responses"]

_OPEN: Final = b'"finish_reason":null'
_CLOSED: Final = b'"finish_reason":"'
_CHOICES: Final = b'"choices":['
_FINGERPRINT: Final = b'"system_fingerprint":'
_FINAL: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})


@dataclass
class Seen:
    """What an answer has told so far. Token ids only where they were asked for."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_ids: list[int] = field(default_factory=list)
    output_ids: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of an event: `data` to forward (None: it is dropped), and what it means."""

    data: bytes | None
    tokens: bool = False  # it carries generated tokens
    finished: bool = False  # a choice ends with it
    forced: bool = False  # as one would that the engine ended
    error: dict[str, Any] | None = None
    last: bool = False  # of a response: nothing follows


class Rewriter:
    """For one request. `model`: the client's name of it; `ids`, `usage`: whether the client asked for them."""

    def __init__(
        self, route: Route, *, served: str, model: str, fingerprint: str, sampled: bool, ids: bool, usage: bool
    ) -> None:
        self._route = route
        self._model = model
        self._fingerprint = fingerprint
        self._sampled = sampled
        self._ids = ids
        self._usage = usage
        self._named = b'"model":' + dump(served)
        self._renamed = b'"model":' + dump(model) + b"," + _FINGERPRINT + dump(fingerprint)
        self.seen = Seen()

    def answer(self, body: bytes) -> tuple[bytes, bool]:
        """A whole answer, rewritten, and whether it ended as one would that the engine ended. Raises ValueError if
        it is no JSON object."""
        value = json.loads(body)
        if not isinstance(value, dict):
            raise ValueError("the answer is no object")  # noqa: TRY004 - the same fault as no JSON
        value["model"] = self._model
        value["system_fingerprint"] = self._fingerprint
        self._count(value.get("usage"))
        if self._route == "responses":
            return dump(value), value.get("status") == "completed"
        choices = _choices(value)
        self._take_ids(value, choices)
        return dump(value), any(_forced(choice) for choice in choices)

    def event(self, event: Event) -> Outcome:
        """An event of a stream. Raises ValueError for data that is no JSON object."""
        return self._response_event(event.data) if self._route == "responses" else self._chunk(event.data)

    def _chunk(self, data: bytes) -> Outcome:
        if not self._sampled and _OPEN in data and _CLOSED not in data and _FINGERPRINT not in data:
            # Nearly every event of a stream. A quote within a JSON string is escaped, so `"model":"` can only be a
            # name and its value, and before `"choices":[` there are none but the chunk's own.
            at = data.find(self._named)
            if 0 < at < data.find(_CHOICES):
                return Outcome(data[:at] + self._renamed + data[at + len(self._named) :], tokens=True)
        value = json.loads(data)
        if not isinstance(value, dict):
            raise ValueError("the event is no object")  # noqa: TRY004
        if value.get("error"):
            return Outcome(None, error=_error(value["error"]))
        value["model"] = self._model
        value["system_fingerprint"] = self._fingerprint
        choices = _choices(value)
        self._count(value.get("usage"))
        if not choices and value.get("usage") is not None and not self._usage:
            return Outcome(None)
        self._take_ids(value, choices)
        if self._sampled and not self._ids and choices and all(_empty(choice) for choice in choices):
            return Outcome(None, tokens=True)  # a token that is no text yet: sent only because ids were asked for
        return Outcome(
            dump(value),
            tokens=bool(choices),
            finished=any(choice.get("finish_reason") is not None for choice in choices),
            forced=any(_forced(choice) for choice in choices),
        )

    def _response_event(self, data: bytes) -> Outcome:
        if b'"response":{' not in data and b'"error"' not in data:
            return Outcome(data, tokens=b'.delta"' in data)
        value = json.loads(data)
        if not isinstance(value, dict):
            raise ValueError("the event is no object")  # noqa: TRY004
        response = value.get("response")
        if not isinstance(response, dict):
            failed = value.get("error") if value.get("type") in (None, "error") else None
            return Outcome(None, error=_error(failed)) if failed else Outcome(data, tokens=b'.delta"' in data)
        response["model"] = self._model
        response["system_fingerprint"] = self._fingerprint
        self._count(response.get("usage"))
        last = value.get("type") in _FINAL
        stopped = last and response.get("status") == "completed"
        return Outcome(dump(value), finished=last, forced=stopped, last=last)

    def _count(self, usage: Any) -> None:
        if isinstance(usage, dict):
            prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
            completion = usage.get("completion_tokens", usage.get("output_tokens"))
            self.seen.prompt_tokens = prompt if isinstance(prompt, int) else 0
            self.seen.completion_tokens = completion if isinstance(completion, int) else 0

    def _take_ids(self, value: dict[str, Any], choices: list[dict[str, Any]]) -> None:
        """Keeps the token ids, and nulls them where the client did not ask."""
        if not self._sampled:
            return
        for owner in (value, *choices):
            prompt, output = owner.get("prompt_token_ids"), owner.get("token_ids")
            if prompt is not None:
                self.seen.prompt_ids = list(prompt)
            if output is not None:
                self.seen.output_ids += output
            if not self._ids:
                owner.update({name: None for name in ("prompt_token_ids", "token_ids") if name in owner})


def _choices(value: dict[str, Any]) -> list[dict[str, Any]]:
    return [choice for choice in value.get("choices") or () if isinstance(choice, dict)]


def _forced(choice: dict[str, Any]) -> bool:
    """Whether it ended at a stop token, as those do that the engine ends, or with an error: a grammar forbade that
    token. The end of sequence that a model draws has no `stop_reason`."""
    return choice.get("finish_reason") == "error" or isinstance(choice.get("stop_reason"), int)


def _empty(choice: dict[str, Any]) -> bool:
    """Whether a chunk of a chat says nothing."""
    return choice.get("delta") == {} and choice.get("finish_reason") is None and choice.get("logprobs") is None


def _error(given: Any) -> dict[str, Any]:
    return given if isinstance(given, dict) else {"message": str(given)}


def dump(value: Any) -> bytes:
    """Compact JSON in UTF-8, as vLLM writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
