from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode
from app.settings import Settings
from tests.support.refusals import refused
from workers.engine.logprobs import ALL, TOP, prompt_logprobs
from workers.engine.pool import EnginePool

Tiny = Callable[..., Path]
TOKENS = np.random.default_rng(3).integers(0, 320, 60).tolist()


@pytest.mark.parametrize("kind", ["llama-padded", "gemma2", "granite"])
def test_they_are_those_of_transformers(tiny: Tiny, pool: EnginePool, kind: str) -> None:
    """In float32: padded vocabularies, soft-capped and scaled logits."""
    checkpoint = tiny(kind)
    rows = prompt_logprobs(checkpoint, TOKENS, pool=pool, dtype="float32", top=ALL)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        logits_TV = model(torch.tensor([TOKENS])).logits[0, :-1].double()
    np.testing.assert_allclose(rows, logits_TV.log_softmax(-1).numpy(), atol=2e-3)


def test_the_likeliest_and_the_text_s_own_are_what_the_whole_rows_say(tiny: Tiny, pool: EnginePool) -> None:
    some = prompt_logprobs(tiny("llama"), TOKENS, pool=pool)
    rows = prompt_logprobs(tiny("llama"), TOKENS, pool=pool, top=ALL)
    assert some.shape == rows.shape == (59, 320)
    assert some.dtype == np.float32
    told = ~np.isnan(some)
    assert told[np.arange(59), TOKENS[1:]].all()
    assert set(told.sum(1)) <= {TOP, TOP + 1}
    np.testing.assert_array_equal(some[told], rows[told])
    assert (np.where(told, rows, np.inf).min(1) <= np.sort(rows, axis=1)[:, -TOP]).all()
    np.testing.assert_allclose(np.exp(rows.astype(np.float64)).sum(-1), 1, atol=1e-5)


def test_a_pool_is_not_needed(tiny: Tiny, pool: EnginePool, engine_settings: Settings) -> None:
    alone = prompt_logprobs(tiny("llama"), TOKENS, settings=engine_settings)
    np.testing.assert_array_equal(alone, prompt_logprobs(tiny("llama"), TOKENS, pool=pool))


def test_what_does_not_fit_is_refused(tiny: Tiny, pool: EnginePool) -> None:
    with pytest.raises(ValueError, match="two tokens"):
        prompt_logprobs(tiny("llama"), [1], pool=pool)
    with refused(ErrorCode.WINDOW_TOO_LARGE, match="256"):
        prompt_logprobs(tiny("llama"), [1] * 256, pool=pool)
    with refused(ErrorCode.VOCABULARY_MISMATCH):
        prompt_logprobs(tiny("llama"), [1, 320], pool=pool)
