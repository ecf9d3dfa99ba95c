"""Our heads against vLLM's own logits, for every kind of head: from the pooling engine's hidden states to ln p."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode, HemostatError
from app.settings import Settings
from tests.support.refusals import refused
from tests.support.tiny import CONFIGS
from workers.distributions.head import Head
from workers.distributions.selfcheck import SLOPE, TOLERANCE, check_head
from workers.engine.logprobs import ALL, prompt_logprobs
from workers.engine.pool import EnginePool
from workers.engine.scoring import ScoringEngine

Tiny = Callable[..., Path]
TOKENS = np.random.default_rng(3).integers(0, 320, 80).tolist()
# Heads whose misunderstanding shows: the cap bites, the scale is far from 1.
TELLING = {"gemma2": {"final_logit_softcapping": 4.0}, "granite": {"logits_scaling": 4.0}}
# The soft cap is forgotten, the scale is, rows are shifted.
MISTAKES: dict[str, Callable[[Head], Head]] = {
    "gemma2": lambda head: replace(head, softcap=None),
    "granite": lambda head: replace(head, scale=1.0),
    "llama": lambda head: replace(head, weight_VD=head.weight_VD.roll(1, 0)),
}


def hidden_states(checkpoint: Path, settings: Settings, pool: EnginePool) -> torch.Tensor:
    engine = ScoringEngine(checkpoint, settings=settings, max_model_len=128, pool=pool)
    ((_, hidden_TD),) = engine.score([TOKENS])
    return hidden_TD


@pytest.mark.parametrize("kind", CONFIGS)
def test_rows_are_those_of_vllm_and_of_transformers_and_a_misunderstood_head_is_refused(
    tiny: Tiny, kind: str, pool: EnginePool, engine_settings: Settings
) -> None:
    checkpoint = tiny(kind, **TELLING.get(kind, {}))
    hidden_TD = hidden_states(checkpoint, engine_settings, pool)
    rows_TV = prompt_logprobs(checkpoint, TOKENS, pool=pool, top=ALL)
    head = Head.load(checkpoint)
    logits_TV = head.logits(hidden_TD[:-1])
    ours_TV = logits_TV.log_softmax(1).numpy()
    allowed_T1 = TOLERANCE * logits_TV.abs().amax(1, keepdim=True).numpy()
    assert rows_TV.shape == ours_TV.shape
    assert (np.abs(ours_TV - rows_TV) <= allowed_T1).all()

    wrong, told = [replace(head, scale=1.01 * head.scale)], [rows_TV]
    if kind in MISTAKES:
        wrong.append(MISTAKES[kind](head))
        told.append(prompt_logprobs(checkpoint, TOKENS, pool=pool))
    for told_TV in told:
        check = check_head(head, hidden_TD, TOKENS, told_TV)
        assert 0 < check.largest_difference <= check.allowed
        assert abs(check.slope) < SLOPE / 3
        for misunderstood in wrong:
            with refused(ErrorCode.HEAD_MISMATCH):
                check_head(misunderstood, hidden_TD, TOKENS, told_TV)

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.inference_mode():
        oracle_TV = model(torch.tensor([TOKENS])).logits[0, :-1]
    # bf16 through every layer: a few per cent of the logits' own spread.
    assert float((logits_TV - oracle_TV).abs().mean()) < 0.05 * float(oracle_TV.std())


def test_the_demo_model_s_head_is_the_engine_s(smollm2: Path, pool: EnginePool, engine_settings: Settings) -> None:
    """And not the engine's with a scale of 1.01: on its own text no position shows that."""
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()
    tokens = model.generate(torch.tensor([TOKENS[:8]]), max_new_tokens=72, do_sample=False)[0].tolist()
    ((_, hidden_TD),) = ScoringEngine(smollm2, settings=engine_settings, max_model_len=128, pool=pool).score([tokens])
    likeliest_TV = prompt_logprobs(smollm2, tokens, pool=pool)
    head = Head.load(smollm2)
    assert abs(check_head(head, hidden_TD, tokens, likeliest_TV).slope) < SLOPE / 2
    with pytest.raises(HemostatError, match="larger than the engine's"):
        check_head(replace(head, scale=1.01 * head.scale), hidden_TD, tokens, likeliest_TV)

    likeliest_TV = prompt_logprobs(smollm2, TOKENS, pool=pool)
    check = check_head(head, hidden_states(smollm2, engine_settings, pool), TOKENS, likeliest_TV)
    # The engine runs the two passes in batches of other sizes. With AMX it rounds by them: 0.001 nats of KL, which is a
    # standard deviation of 0.045 of ln p. Four and a half of them are the bound; without AMX it was below 0.1.
    assert check.largest_difference < 0.2
