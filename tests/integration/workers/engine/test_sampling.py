import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode
from tests.support.refusals import refused
from workers.engine.logprobs import ALL, prompt_logprobs
from workers.engine.pool import EnginePool
from workers.engine.sampling import Sampler

Tiny = Callable[..., Path]
PROMPT = [5, 9, 200, 31, 77]


@pytest.fixture(scope="module")
def sampler(tiny: Tiny, pool: EnginePool) -> Iterator[Sampler]:
    with Sampler(tiny("llama"), pool=pool) as made:
        yield made


def test_one_seed_gives_one_text_and_streams_differ(sampler: Sampler) -> None:
    prompts = [PROMPT] * 8
    one = sampler.sample(prompts, 20, 7, 1.0)
    assert sampler.sample(prompts, 20, 7, 1.0) == one
    assert sampler.sample(prompts, 20, 8, 1.0) != one
    assert len({tuple(tokens) for tokens in one}) == 8
    assert all(0 < len(tokens) <= 20 for tokens in one)
    assert sampler.sample([], 20, 7, 1.0) == []


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_are_drawn_from_the_models_own_distribution(
    tiny: Tiny, pool: EnginePool, sampler: Sampler, temperature: float
) -> None:
    """2,000 first tokens against the softmax of the model's logits at that temperature, by a chi-squared test."""
    drawn = [tokens[0] if tokens else 1 for tokens in sampler.sample([PROMPT] * 2000, 1, 0, temperature)]
    logits = prompt_logprobs(tiny("llama"), [*PROMPT, 0], pool=pool, top=ALL)[-1].astype(np.float64)
    probabilities = np.exp(logits / temperature)
    probabilities /= probabilities.sum()
    expected = 2000 * probabilities
    common = expected >= 8
    counts = np.bincount(drawn, minlength=320)
    observed = np.append(counts[common], counts[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum())
    assert scipy.stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue > 1e-3


def test_without_temperature_it_is_the_greedy_text_of_transformers(tiny: Tiny, pool: EnginePool) -> None:
    checkpoint = tiny("llama")
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        for _ in range(24):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    expected = ids[0, len(PROMPT) :].tolist()
    expected = expected[: expected.index(1)] if 1 in expected else expected
    with Sampler(checkpoint, pool=pool, dtype="float32") as sampler:
        assert sampler.sample([PROMPT], 24, 0, 0.0) == [expected]


def test_a_text_stops_before_its_end_token(tiny: Tiny, pool: EnginePool, sampler: Sampler, tmp_path: Path) -> None:
    """The greedy text's tenth token is made an end token."""
    whole = sampler.sample([PROMPT], 30, 0, 0.0)[0]
    end = whole[9]
    for file in tiny("llama").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [end], "top_k": 1, "temperature": 9}))
    with Sampler(tmp_path, pool=pool) as other:
        assert other.sample([PROMPT], 30, 0, 0.0) == [whole[: whole.index(end)]]


def test_what_does_not_fit_the_context_is_refused(sampler: Sampler) -> None:
    with refused(ErrorCode.WINDOW_TOO_LARGE):
        sampler.sample([PROMPT], 300, 0, 1.0)


class StopError(Exception):
    pass


def test_it_stops_between_two_tokens(tiny: Tiny, pool: EnginePool) -> None:
    left = iter([False] * 12 + [True] * 1000)

    def check() -> None:
        if next(left):
            raise StopError

    with Sampler(tiny("llama"), pool=pool, check_cancelled=check) as sampler, pytest.raises(StopError):
        sampler.sample([PROMPT] * 4, 100, 0, 1.0)
