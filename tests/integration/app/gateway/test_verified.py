"""Verified decoding through the gateway: the official client, the API, a verify process, vLLM to tokenize."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.contracts.deployment import DeploymentState
from app.models.registry import register
from tests.integration.app.gateway.conftest import CONTEXT, Service
from tests.support import verifying

Tiny = Callable[..., Path]
VERIFY: dict[str, Any] = {"extra_body": {"hemostat": {"verify": True}}}
MESSAGES = [{"role": "user", "content": "The quick brown fox jumps"}]
PROMPT = "The quick brown fox"
RECIPE = [{"type": "quantize.rtn", "bits": 2, "group_size": 32}]
LENGTH = 256


@pytest.fixture(scope="module")
def reference(tiny: Tiny) -> Path:
    return tiny("llama", max_position_embeddings=CONTEXT)


@pytest.fixture(scope="module")
def verified(api_process: Service, reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A deployment whose verify process is ready."""
    service, folder, name = api_process, tmp_path_factory.mktemp("verified"), "verified"
    models, log = folder / "models.toml", folder / "log"
    register(models, "tiny", reference)
    fields: dict[str, Any] = {"model": {"model": "tiny", "recipe": RECIPE}, "verify": True, "max_model_len": LENGTH}
    asyncio.run(service.deploy(name, **fields))
    process = verifying.start(service.settings, name, log, HEMOSTAT_MODELS=str(models))
    try:
        ends = (DeploymentState.READY, DeploymentState.FAILED)
        found = asyncio.run(verifying.until(service.settings, name, lambda one: one.state in ends, process, log))
        assert found.state is DeploymentState.READY, found.reason
        yield name
    finally:
        verifying.end(process)


def greedy(checkpoint: Path, prompt: list[int], answer: list[int]) -> float:
    """The most nats by which a token of the answer is less probable than the best one, by transformers in float32."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    with torch.inference_mode():
        logp_TV = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].log_softmax(1)
    taken_T = logp_TV.gather(1, torch.tensor(answer)[:, None])[:, 0]
    return float((logp_TV.amax(1) - taken_T).max())


def own_greedy(checkpoint: Path, prompt: list[int], tokens: int) -> list[int]:
    """What transformers generates in float32."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    with torch.inference_mode():
        out = model.generate(torch.tensor([prompt]), max_new_tokens=tokens, do_sample=False)
    return [int(token) for token in out[0, len(prompt) :]]


async def test_greedy_answers_are_the_references_own(service: Service, verified: str, reference: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(reference)
    chat = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=True)["input_ids"]
    async with service.openai() as client:
        talk = await client.chat.completions.create(
            model=verified, messages=MESSAGES, max_tokens=12, temperature=0, **VERIFY
        )
        text = await client.completions.create(model=verified, prompt=PROMPT, max_tokens=12, temperature=0, **VERIFY)
    for answer, shown, prompt in (
        (talk, talk.choices[0].message.content, chat),
        (text, text.choices[0].text, tokenizer.encode(PROMPT)),
    ):
        expected = own_greedy(reference, prompt, 12)
        ends = expected[-1] == tokenizer.eos_token_id
        assert answer.usage.prompt_tokens == len(prompt)
        # A tie within bf16's rounding may be broken the other way; then the answers part there.
        if shown == tokenizer.decode(expected, skip_special_tokens=True).rstrip("\ufffd"):
            assert answer.choices[0].finish_reason == ("stop" if ends else "length")
            assert answer.usage.completion_tokens == len(expected)
            continue
        assert greedy(reference, prompt, tokenizer.encode(shown, add_special_tokens=False)) < 0.05


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_say_how_well_the_draft_did(service: Service, verified: str, *, stream: bool) -> None:
    asked: dict[str, Any] = {"model": verified, "max_tokens": 24, "seed": 5, "temperature": 0.9, **VERIFY}
    async with service.openai() as client:
        raw = await client.chat.completions.with_raw_response.create(messages=MESSAGES, **asked)
        talk, text = raw.parse(), await client.completions.create(prompt=PROMPT, **asked)
        assert raw.headers["x-hemostat-calibration"] == "verified"
        assert talk.system_fingerprint.endswith("-verified")
        for answer in (talk, text):
            found = answer.model_extra["hemostat"]
            assert found["verified"] is True
            assert 0 < found["acceptance_rate"] < 1
            assert 1 <= found["tokens_per_reference_pass"] <= 5
        if not stream:
            return
        chunks = [
            chunk
            async for chunk in await client.chat.completions.create(
                messages=MESSAGES, stream=True, stream_options={"include_usage": True}, **asked
            )
        ]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == talk.choices[0].message.content
        assert chunks[-1].usage == talk.usage
        assert chunks[-2].choices[0].finish_reason == talk.choices[0].finish_reason
        assert chunks[-2].model_extra["hemostat"] == talk.model_extra["hemostat"]
        parts = [part async for part in await client.completions.create(prompt=PROMPT, stream=True, **asked)]
        assert "".join(part.choices[0].text for part in parts) == text.choices[0].text
        assert parts[-1].model_extra["hemostat"] == text.model_extra["hemostat"]


async def test_a_stop_string_ends_the_answer_before_it(service: Service, verified: str) -> None:
    asked: dict[str, Any] = {"model": verified, "prompt": PROMPT, "max_tokens": 40, "seed": 5, **VERIFY}
    async with service.openai() as client:
        whole = await client.completions.create(**asked)
        middle = len(whole.choices[0].text) // 2
        stop = whole.choices[0].text[middle : middle + 2]
        assert len(stop) == 2
        cut = await client.completions.create(stop=[stop], **asked)
    assert cut.choices[0].text == whole.choices[0].text[: whole.choices[0].text.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    assert cut.usage.completion_tokens <= whole.usage.completion_tokens
