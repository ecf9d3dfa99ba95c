"""Verified decoding over real engines: a tiny model and another one that drafts for it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry
from transformers import AutoModelForCausalLM

from app.models.checkpoint import inspect
from app.settings import Settings
from tests.support.tiny import make_tokenizer
from workers.calibration.verified import selftest
from workers.calibration.verified.requests import FullError, RequestQueue, Ticket, VerifiedRequest
from workers.calibration.verified.routes import make_app
from workers.calibration.verified.truncation import Sampling, distribution
from workers.calibration.verified.verifier import Stream, Verifier
from workers.distributions.head import Head
from workers.engine.pool import EnginePool

Tiny = Callable[..., Path]
LENGTH, STREAMS = 128, 64
PROMPTS = [[5, 17, 200, 33], [91, 4], [250, 251, 252, 7, 8, 9]]


class StoppedError(Exception):
    pass


@pytest.fixture(scope="module")
def models(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The reference, and a damaged copy of it that drafts for it."""
    reference, damaged = tiny("llama", seed=0), tmp_path_factory.mktemp("damaged")
    model = AutoModelForCausalLM.from_pretrained(reference, dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight_OI in (parameter for parameter in model.parameters() if parameter.ndim == 2):
            noise_OI = torch.randn(weight_OI.shape, generator=generator)
            weight_OI.add_((0.1 * weight_OI.float().std() * noise_OI).to(weight_OI.dtype))
    model.save_pretrained(damaged)
    return reference, damaged


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EnginePool]:
    settings = Settings(
        home=tmp_path_factory.mktemp("verified"), engine_batch_tokens=512, engine_kv_cache_bytes=16 * 1024 * 1024
    )
    pool = EnginePool(settings)
    yield pool
    pool.close()


@contextlib.contextmanager
def verifying(models: tuple[Path, Path], pool: EnginePool, length: int = LENGTH, **options: Any) -> Iterator[Verifier]:
    reference, candidate = map(inspect, models)
    head = Head.load(models[0]).on("cpu", torch.float32)
    options = {"streams": STREAMS} | options
    verifier = Verifier(reference, candidate, head, pool=pool, length=length, **options)
    try:
        yield verifier
    finally:
        verifier.close()


@pytest.fixture(scope="module")
def verifier(models: tuple[Path, Path], pool: EnginePool) -> Iterator[Verifier]:
    with verifying(models, pool, block=4) as one:
        yield one


def streams(sampling: Sampling, tokens: int, count: int, prompt: list[int]) -> list[Stream]:
    seeds = np.random.SeedSequence(7).spawn(count)
    return [Stream(list(prompt), sampling, tokens, generator=np.random.default_rng(seed)) for seed in seeds]


def finish(verifier: Verifier, all_: list[Stream]) -> None:
    while active := [stream for stream in all_ if stream.finish is None]:
        verifier.round(active)


@torch.inference_mode()
def exact(checkpoint: Path, prefixes: list[list[int]], sampling: Sampling) -> np.ndarray[Any, Any]:
    """By transformers, in float32."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    rows = [model(torch.tensor([prefix])).logits[0, -1] for prefix in prefixes]
    return distribution(torch.stack(rows), sampling).numpy()


@torch.inference_mode()
def clear_cut(checkpoint: Path) -> tuple[list[int], int]:
    """A prompt, and how many tokens top-k may keep so that, on the way of two tokens, none left out is nearly as
    probable as one that stays: there bf16 and float32 keep different ones."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)

    def gap(prompt: list[int], k: int) -> float:
        first_V = model(torch.tensor([prompt])).logits[0, -1]
        prefixes = [[*prompt, int(token)] for token in first_V.topk(k).indices]
        logits_TV = torch.cat([first_V[None], model(torch.tensor(prefixes)).logits[:, -1]]).topk(k + 1).values
        return float((logits_TV[:, k - 1] - logits_TV[:, k]).min())

    gaps = {(token, k): gap([token, 17, 200, 33], k) for token in range(5, 45) for k in (2, 3, 4)}
    token, best = max(gaps, key=lambda one: gaps[one])
    assert gaps[token, best] > 0.1
    return [token, 17, 200, 33], best


def test_answers_follow_the_reference_and_not_the_draft(verifier: Verifier, models: tuple[Path, Path]) -> None:
    """Pairs of tokens against transformers' float32 probabilities: a thousand draws."""
    prompt, kept = clear_cut(models[0])
    sampling = Sampling(temperature=1.0, top_k=kept)
    drawn = streams(sampling, 2, 1000, prompt)
    finish(verifier, drawn)
    counts = Counter(tuple(stream.output) for stream in drawn)

    def pairs(checkpoint: Path) -> dict[tuple[int, ...], float]:
        first_V = exact(checkpoint, [prompt], sampling)[0]
        tokens = np.flatnonzero(first_V)
        second_TV = exact(checkpoint, [[*prompt, int(token)] for token in tokens], sampling)
        return {
            (int(a), int(b)): float(first_V[a] * row_V[b])
            for a, row_V in zip(tokens, second_TV, strict=True)
            for b in np.flatnonzero(row_V)
        }

    reference = pairs(models[0])
    assert selftest.fit(counts, reference) > 1e-4
    assert set(pairs(models[1])) != set(reference), "the draft would answer otherwise"
    assert 0 < sum(stream.accepted for stream in drawn) < sum(stream.drafted for stream in drawn)


@torch.inference_mode()
def check_greedy(checkpoint: Path, done: list[Stream]) -> None:
    """Each token is transformers' most probable one too, but for ties within bf16's rounding."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    for stream in done:
        logits_TV = model(torch.tensor([stream.prompt + stream.output])).logits[0, len(stream.prompt) - 1 : -1]
        taken_T = logits_TV.gather(1, torch.tensor(stream.output)[:, None])[:, 0]
        assert (logits_TV.amax(1) - taken_T).max() < 0.05


def test_greedy_answers_are_the_references_whatever_the_block(
    verifier: Verifier, models: tuple[Path, Path], pool: EnginePool
) -> None:
    def answers(verifier: Verifier) -> list[list[int]]:
        done = [Stream(list(prompt), Sampling(temperature=0), 24) for prompt in PROMPTS]
        finish(verifier, done)
        check_greedy(models[0], done)
        return [stream.output for stream in done]

    four = answers(verifier)
    for block in (1, 7):
        with verifying(models, pool, block=block) as other:
            assert answers(other) == four


def test_the_self_test_passes_a_right_verifier(verifier: Verifier) -> None:
    told: list[tuple[int, int]] = []
    found = selftest.run(verifier, PROMPTS, progress=lambda done, total: told.append((done, total)))
    assert found.passed, found.reason
    assert found.greedy_equal == found.greedy_total == 32 * len(PROMPTS)
    assert told[-1][0] == told[-1][1]
    assert found.power > 0.9


def test_the_self_test_refuses_a_draft_that_lies_about_its_distribution(
    verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens that do not come from the q that is reported, as if a temperature were left out on one side."""
    honest = Verifier.drafted

    def lying(self: Verifier, keys: list[str], logits_RV: torch.Tensor) -> list[int]:
        tokens = honest(self, keys, logits_RV)
        for stream in (self._streams[key] for key in keys):
            if stream.finish is None:
                token, q_V = stream.draft[-1]
                stream.draft[-1] = token, q_V**0.5 / (q_V**0.5).sum()
        return tokens

    with monkeypatch.context() as patched:
        patched.setattr(Verifier, "drafted", lying)
        found = selftest.run(verifier, PROMPTS)
    assert not found.passed
    assert "do not follow the reference" in found.reason


def test_the_same_seed_gives_the_same_answer_alone_and_among_others(verifier: Verifier) -> None:
    def one() -> Stream:
        return Stream(list(PROMPTS[0]), Sampling(temperature=1.2), 12, generator=np.random.default_rng(3))

    alone, among = one(), one()
    finish(verifier, [alone])
    finish(verifier, [among, *streams(Sampling(), 12, 5, PROMPTS[1])])
    assert alone.output == among.output
    assert len(alone.output) == 12


def test_an_answer_ends_at_a_stop_token_which_is_not_part_of_it(verifier: Verifier) -> None:
    def drawn(*stops: int) -> Stream:
        generator = np.random.default_rng(3)
        made = Stream(list(PROMPTS[0]), Sampling(temperature=2.0), 16, frozenset(stops), generator)
        finish(verifier, [made])
        return made

    whole = drawn()
    stop = next(token for token in whole.output if whole.output.index(token) >= 2)
    cut = drawn(stop)
    assert cut.finish == "stop"
    assert cut.output == whole.output[: whole.output.index(stop)]


def test_keys_and_values_are_right_though_prompts_are_read_in_parts_and_again(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of 250 tokens cut prompts, and a cache of 20 blocks of 128 sends requests away in the middle of answers."""
    settings = Settings(home=tmp_path, engine_batch_tokens=250, engine_kv_cache_bytes=1024 * 1024)
    pool, without_draft, plain = EnginePool(settings), Counter[str](), Verifier.verified

    def counted(self: Verifier, keys: list[str], drafts: list[list[int]], logits_RV: torch.Tensor) -> list[list[int]]:
        without_draft.update(key for key, draft in zip(keys, drafts, strict=True) if not draft)
        return plain(self, keys, drafts, logits_RV)

    monkeypatch.setattr(Verifier, "verified", counted)
    options: dict[str, Any] = {"length": 240, "streams": 16, "block": 7, "kv_tokens": 1}
    generator = np.random.default_rng(0)
    prompts = [generator.integers(2, 300, 100 + index % 3).tolist() for index in range(24)]
    with verifying(models, pool, **options) as verifier:
        greedy = [Stream(prompt, Sampling(temperature=0), 120) for prompt in prompts]
        finish(verifier, greedy)
    assert without_draft.total() > len(without_draft) == len(prompts), "no request was sent away"
    check_greedy(models[0], greedy)
    with verifying((models[1], models[1]), pool, **options) as verifier:
        drawn = [Stream(prompt, Sampling(), 120, generator=np.random.default_rng(9)) for prompt in prompts]
        finish(verifier, drawn)
    # The candidate verified by itself: nearly all is kept, but for what bf16 rounds.
    assert sum(stream.overlap for stream in drawn) / sum(stream.drafted for stream in drawn) > 0.97
    pool.close()


def test_streams_of_other_salts_share_no_prefix(
    models: tuple[Path, Path], pool: EnginePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with verifying(models, pool, length=240) as verifier:
        cached: list[int] = []
        step = verifier._engine._engine.step

        def recorded() -> list[Any]:
            outputs: list[Any] = step()
            cached.extend(output.num_cached_tokens for output in outputs)
            return outputs

        monkeypatch.setattr(verifier._engine._engine, "step", recorded)
        prompt = np.random.default_rng(0).integers(2, 300, 200).tolist()
        for salt in ("a", "a", "b", "b", None, "a"):
            verifier.round([Stream(list(prompt), Sampling(), 1, salt=salt)])
    assert cached == [0, 128, 0, 128, 0, 128]


def test_a_reference_whose_logits_are_not_finite_is_an_error_line(
    verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NaN in the head of one token reaches every distribution."""
    weight_VD = verifier.head.weight_VD.clone()
    weight_VD[7] = torch.nan
    monkeypatch.setattr(verifier, "head", dataclasses.replace(verifier.head, weight_VD=weight_VD))
    queue = RequestQueue(verifier, make_tokenizer().backend_tokenizer, stops=frozenset(), running=2, waiting=2)
    ended = threading.Event()

    def check() -> None:
        if ended.is_set():
            raise StoppedError

    async def talk() -> tuple[httpx.Response, httpx.Response]:
        working = asyncio.create_task(asyncio.to_thread(queue.work, check_cancelled=check))
        door = make_app(lambda: queue, lambda: "it has ended", CollectorRegistry())
        asked = {"prompt": [5, 6], "max_tokens": 9}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://door", timeout=60) as client:
            try:
                first = await client.post("/v1/verified", json=asked)
            finally:
                ended.set()
                with pytest.raises(StoppedError):
                    await working
            return first, await client.post("/v1/verified", json=asked)

    first, after_the_end = asyncio.run(talk())
    assert [json.loads(line) for line in first.text.splitlines()] == [
        {"error": "the reference's logits are not finite"}
    ]
    assert (after_the_end.status_code, after_the_end.json()) == (501, {"reason": "it has ended"})
    with pytest.raises(ValueError, match="not finite"):
        selftest.run(verifier, PROMPTS)


def test_requests_are_answered_together_and_dropped_when_nobody_listens(verifier: Verifier) -> None:
    tokenizer = make_tokenizer().backend_tokenizer
    queue = RequestQueue(verifier, tokenizer, stops=frozenset(), running=4, waiting=1)
    ended = threading.Event()

    def check() -> None:
        if ended.is_set():
            raise StoppedError

    async def talk() -> None:
        tickets = [queue.submit(VerifiedRequest(prompt=[5, 6], max_tokens=20, seed=seed)) for seed in range(5)]
        with pytest.raises(FullError):
            queue.submit(VerifiedRequest(prompt=[5, 6], max_tokens=20))
        tickets[4].dropped.set()
        working = asyncio.create_task(asyncio.to_thread(queue.work, check_cancelled=check))
        try:
            await answered(tickets)
        finally:
            ended.set()
            with pytest.raises(StoppedError):
                await working
        assert tickets[4].lines.empty()

    async def answered(tickets: list[Ticket]) -> None:
        for ticket in tickets[:4]:
            lines: list[Any] = []
            while not lines or "finish_reason" not in lines[-1]:
                lines.append(await asyncio.wait_for(ticket.lines.get(), 60))
            tokens = list(itertools.chain.from_iterable(line["token_ids"] for line in lines[:-1]))
            assert tokens == ticket.stream.output
            # Random tokens may end within a character, which is then not shown.
            shown = "".join(line["text"] for line in lines[:-1])
            assert shown == tokenizer.decode(tokens).rstrip("\ufffd") or shown == tokenizer.decode(tokens)
            assert lines[-1]["usage"] == {"prompt_tokens": 2, "completion_tokens": 20, "total_tokens": 22}
            assert 1 <= lines[-1]["tokens_per_reference_pass"] <= verifier.block + 1
            assert 0 <= lines[-1]["acceptance_rate"] <= 1

    asyncio.run(talk())
