"""What the bench of serving asks, and what it hands on to a shadow process."""

import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from tests.bench import serve_load
from tests.bench.serve_load import Load, completions


async def test_one_request_in_so_many_is_kept_and_handed_on_with_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    handed: list[tuple[str, Sequence[int], Sequence[int]]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        choice = {"token_ids": [7, 8, 9]} if asked[-1]["return_token_ids"] else {}
        return httpx.Response(200, json={"usage": {"completion_tokens": 3}, "choices": [choice]})

    async def kept(request: str, prompt: Sequence[int], output: Sequence[int]) -> None:
        handed.append((request, prompt, output))

    monkeypatch.setattr(serve_load, "_client", lambda: httpx.AsyncClient(transport=httpx.MockTransport(answer)))
    monkeypatch.setattr(serve_load, "_asked", 0)
    load = Load("bench", clients=2, tokens=3, extra={"hemostat_version": "identity"})
    assert await completions("http://server", load, kept_every=4, kept=kept, rounds=4) > 0
    chosen = [one for one in asked if "hemostat_keep_hidden" in one["vllm_xargs"]]
    assert (len(asked), len(chosen)) == (8, 2)
    assert sorted(handed) == sorted((one["vllm_xargs"]["hemostat_request"], one["prompt"], [7, 8, 9]) for one in chosen)
    assert [one["return_token_ids"] for one in asked].count(True) == 2
