"""The case `verified` of `make bench`: greedy and sampled answers of 128 tokens by verified decoding, and the reference
alone; the candidate is the demo model at 4 bits.

`cpu_seconds_per_token` counts both cores, and is little disturbed by what else runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import torch

from app.models.checkpoint import inspect
from app.settings import Settings
from tests.bench.rows import Row
from workers.calibration.verified.truncation import Sampling
from workers.calibration.verified.verifier import Stream, Verifier
from workers.distributions.head import Head
from workers.engine import vllm_names as vllm
from workers.engine.generation import GenerationEngine
from workers.engine.pool import EnginePool
from workers.text.shipped import shipped_documents
from workers.text.tokenization import encode, load_tokenizer

TOKENS: Final = 128
PROMPT: Final = 32
LENGTH: Final = 256
STREAMS: Final = (1, 8)
SAMPLINGS: Final = {"greedy": Sampling(temperature=0.0), "sampled": Sampling()}


def bench_verified(settings: Settings, model: Path, candidate: Path) -> list[Row]:
    """Tokens per second of wall time, and CPU seconds per token."""
    prompts = prompts_of(model)
    pool = EnginePool(settings)
    rows = reference_alone(model, pool, prompts)
    head = Head.load(model).on("cpu", torch.float32)
    verifier = Verifier(inspect(model), inspect(candidate), head, pool=pool, length=LENGTH, streams=max(STREAMS))
    for kind, sampling in SAMPLINGS.items():
        answered(verifier, prompts[:1], sampling)  # what the first use makes is made
        for count in STREAMS:
            rows += by_both(verifier, f"{kind}_{count}", prompts[:count], sampling)
    verifier.close()
    pool.close()
    return rows


def by_both(verifier: Verifier, case: str, prompts: list[list[int]], sampling: Sampling) -> list[Row]:
    """Of verified answers to the prompts, all at once."""
    streams: list[Stream] = []
    rates = measured(case, lambda: streams.extend(answered(verifier, prompts, sampling)), len(prompts))
    acceptance = sum(stream.overlap for stream in streams) / sum(stream.drafted for stream in streams)
    per_pass = sum(stream.drawn for stream in streams) / sum(stream.passes for stream in streams)
    return [
        *rates,
        Row("verified", case, "acceptance_rate", acceptance, "probability"),
        Row("verified", case, "tokens_per_reference_pass", per_pass, "tokens"),
    ]


def reference_alone(model: Path, pool: EnginePool, prompts: list[list[int]]) -> list[Row]:
    """Of the reference's own greedy answers, by an engine without a draft."""
    rows = []
    with GenerationEngine(model, pool=pool, length=LENGTH, streams=max(STREAMS)) as engine:

        def answers(count: int) -> None:
            params = vllm.SamplingParams(temperature=0.0, max_tokens=TOKENS, ignore_eos=True, detokenize=False)
            engine.run(prompts[:count], [params] * count)

        answers(1)
        for count in STREAMS:
            rows += measured(f"reference_{count}", partial(answers, count), count)
    return rows


def answered(verifier: Verifier, prompts: list[list[int]], sampling: Sampling) -> list[Stream]:
    """Answers to prompts, all at once."""
    streams = [Stream(prompt, sampling, TOKENS, generator=np.random.default_rng(7)) for prompt in prompts]
    while active := [stream for stream in streams if stream.finish is None]:
        verifier.round(active)
    return streams


def measured(case: str, work: Callable[[], object], answers: int) -> list[Row]:
    """Rates of so many answers."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return [
        Row("verified", case, "tokens_per_second", TOKENS * answers / wall, "tokens/s"),
        Row("verified", case, "cpu_seconds_per_token", cpu / (TOKENS * answers), "s"),
    ]


def prompts_of(model: Path) -> list[list[int]]:
    """Beginnings of shipped documents."""
    tokenizer = load_tokenizer(model)
    found = (encode(tokenizer, one.text)[:PROMPT].tolist() for one in shipped_documents("evaluation") if one.text)
    return list(islice(found, max(STREAMS)))
