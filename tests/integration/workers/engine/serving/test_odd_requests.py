"""Requests by a seed that the gateway lets through, to a real replica: it answers each, and lives.

`HEMOSTAT_ODD_SEED` and `HEMOSTAT_ODD_REQUESTS` choose others and more of them.
"""

import json
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import httpx
import psutil
import pytest

from app.contracts.deployment import DeploymentState, Replica
from app.gateway import bounds
from app.gateway.errors import ApiError
from tests.integration.conftest import RedisServer
from tests.integration.workers.engine.serving.test_serve import PATIENCE_S, Service, Tiny, family

SEED: Final = int(os.environ.get("HEMOSTAT_ODD_SEED", "1"))
REQUESTS: Final = int(os.environ.get("HEMOSTAT_ODD_REQUESTS", "150"))
LENGTH: Final = 512
VOCABULARY: Final = 320
WORDS: Final = ("a", "the lazy dog", "", " ", "\0", "\u2028", "ﷺ", "<|im_end|>", "0", "{", "\U0001f600")
FIELDS: Final[dict[str, tuple[Any, ...]]] = {
    "n": (1, 2, 16),
    "best_of": (1, 4),
    "max_tokens": (0, 1, 2, 30, LENGTH, 1_000_000),
    "min_tokens": (0, 1, 40),
    "temperature": (0, 1e-30, 1e-5, 0.7, 1, 2),
    "top_p": (0, 1e-9, 0.5, 1),
    "top_k": (-1, 0, 1, 5, VOCABULARY, 2**31 - 1),
    "min_p": (0, 1e-9, 0.5, 1),
    "seed": (None, 0, 1, -1, 2**63 - 1, -(2**63)),
    "presence_penalty": (-2, 0, 2),
    "frequency_penalty": (-2, 0, 2),
    "repetition_penalty": (0, 1e-30, 1, 1e4),
    "logit_bias": ({}, {"5": 100, "6": -100}, {"319": -100}, {"320": 1}, {"-1": 1}, {"100000": 1}, {"x": 1}),
    "logprobs": (None, 0, 1, 20, True),
    "top_logprobs": (0, 20),
    "prompt_logprobs": (0, 1, 20),
    "echo": (True, False),
    "stop": ("a", ["e", " "], ["\0"], [""], []),
    "stop_token_ids": ([], [1, 5], [-1], [VOCABULARY], [2**40]),
    "bad_words": (["a"], [""], ["the lazy dog"], ["\0"]),
    "allowed_token_ids": ([5, 6, 7], [], [-1], [VOCABULARY], [319]),
    "logprob_token_ids": ([1], [-1], [VOCABULARY]),
    "ignore_eos": (True, False),
    "skip_special_tokens": (True, False),
    "return_token_ids": (True, False),
    "truncate_prompt_tokens": (-1, 0, 1, 10, 100_000),
    "use_beam_search": (True, False),
    "length_penalty": (-1e4, 0, 1),
    "priority": (0, 1, -1),
    "structured_outputs": ({"regex": "[ab]+"}, {"choice": ["a", "b"]}, {"json": {"type": "object"}}, {"grammar": "x"}),
    "response_format": ({"type": "json_object"}, {"type": "text"}),
    "stream": (True, False),
    "stream_options": ({"include_usage": True, "continuous_usage_stats": True},),
    "add_special_tokens": (True, False),
    "cache_salt": ("a", "b"),
    "vllm_xargs": ({"a": 1},),
    "repetition_detection": ({"max_pattern_size": 2, "min_count": 2},),
}


def bodies(seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Paths and bodies without end; those that the gateway refuses are left out."""
    draw = random.Random(seed)
    while True:
        chat = draw.random() < 0.4
        chosen = draw.sample(sorted(FIELDS), draw.choice((0, 1, 2, 3, 5)))
        body: dict[str, Any] = {"model": "odd", "max_tokens": 4} | {name: draw.choice(FIELDS[name]) for name in chosen}
        words = draw.choice(WORDS) * draw.choice((1, 1, 40, 120))
        tokens = [draw.randrange(-1, VOCABULARY + 1) for _ in range(draw.choice((0, 1, 2, LENGTH - 1, LENGTH, 2000)))]
        if chat:
            body["messages"] = [{"role": draw.choice(("user", "system", "assistant")), "content": words}]
        else:
            body["prompt"] = draw.choice((words, tokens, [[1]], [[5], [6, 7]], [words, words]))
        try:
            bounds.check(body)
        except ApiError:
            continue
        yield ("/v1/chat/completions" if chat else "/v1/completions"), body


@pytest.fixture(scope="module")
def service(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    redis = RedisServer(tmp_path_factory.mktemp("odd") / "home")
    redis.start()
    made = Service(redis, tiny("llama", max_position_embeddings=LENGTH))
    yield made
    for process in made.processes:
        for pid in sorted(family(process)):
            psutil.Process(pid).kill()
        process.wait()
    redis.stop()


def test_a_replica_answers_odd_requests_and_lives(service: Service) -> None:
    service.create("odd", max_model_len=LENGTH)
    service.serve("odd", HEMOSTAT_ENGINE_BATCH_TOKENS="512")
    ready: Replica = service.until("odd", lambda one: one.state is DeploymentState.READY)

    def answered(asked: tuple[str, dict[str, Any]]) -> int:
        path, body = asked
        return httpx.post(ready.url + path, json=body, timeout=PATIENCE_S).status_code

    drawn = bodies(SEED)
    asked = [next(drawn) for _ in range(REQUESTS)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(answered, asked))
    wrong = [(status, json.dumps(one)[:500]) for status, one in zip(found, asked, strict=True) if status >= 500]
    assert wrong == []
    assert found.count(200) > REQUESTS // 4
    assert answered(("/v1/completions", {"model": "odd", "prompt": "a", "max_tokens": 1})) == 200
