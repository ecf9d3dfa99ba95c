from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM

from app.models.checkpoint import inspect
from workers.mitigation import own_text as module
from workers.mitigation.own_text import dealt, own_text
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.reading import open_tensors


def written(folder, tokens_NL, windows, *, seed=0, **options):
    info = inspect(folder)
    with open_tensors(info, "cpu") as reader:
        skeleton = Skeleton(info, reader.read, device="cpu", dtype=torch.float32)
        return own_text(skeleton, tokens_NL, windows, seed=seed, **options)


def uneven(folder):
    """The model with larger logits: one that prefers some tokens."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        model.model.norm.weight.mul_(20)
    model.save_pretrained(folder.parent / "uneven")
    return folder.parent / "uneven"


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_what_follows_a_token_is_drawn_from_the_models_own_distribution(tiny, kind):
    folder = uneven(tiny(kind))
    found_NL = written(folder, torch.tensor([[7, 7]]), 3000)
    assert found_NL.shape == (3000, 2)
    assert bool((found_NL[:, 0] == 7).all())
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        p_V = model(torch.tensor([[7]])).logits[0, -1].double().softmax(-1).numpy()
    counts_V = np.bincount(found_NL[:, 1].numpy(), minlength=len(p_V)).astype(np.float64)
    often = p_V * 3000 >= 5
    seen = np.append(counts_V[often], counts_V[~often].sum())
    expected = np.append(p_V[often], p_V[~often].sum()) * 3000
    assert chisquare(seen, expected * seen.sum() / expected.sum()).pvalue > 1e-4
    # and no other distribution: one that is flat is told from it
    assert chisquare(counts_V, np.full(len(p_V), 3000 / len(p_V))).pvalue < 1e-9


def test_later_tokens_follow_all_before_them(tiny):
    folder = uneven(tiny())
    found_NL = written(folder, torch.tensor([[3, 9, 14], [5, 11, 2]]), 64)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logp_NLV = model(found_NL).logits.log_softmax(-1)
    own = logp_NLV[:, 1].gather(-1, found_NL[:, 2:]).mean()
    other = logp_NLV[:, 1].gather(-1, found_NL.roll(1, 0)[:, 2:]).mean()
    entropy = (logp_NLV[:, 1].exp() * logp_NLV[:, 1]).sum(-1).mean()
    assert float(own) == pytest.approx(float(entropy), abs=0.6)
    assert own > other + 0.5


def test_pieces_begin_with_tokens_of_the_text_and_fill_whole_windows(tiny, monkeypatch):
    monkeypatch.setattr(module, "PIECE", 4)
    monkeypatch.setattr(module, "BATCH", 3)
    told = []
    found_NL = written(
        tiny(), torch.full((2, 10), 21), 4, progress=lambda phase, done, total: told.append((phase, done, total))
    )
    assert found_NL.shape == (4, 10)
    assert found_NL.dtype == torch.int64
    # all windows begin with one token: a BOS, which pieces follow; nine tokens in three pieces of three
    assert bool((found_NL[:, [0, 1, 4, 7]] == 21).all())
    assert Counter(phase for phase, _, _ in told) == {"own text": len(told)}
    assert told[-1] == ("own text", 36, 36)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_pieces_begin_with_any_token_that_may_begin_one_all_as_likely(tiny, monkeypatch):
    monkeypatch.setattr(module, "PIECE", 1)
    starts_V = torch.tensor([30, 31, 40, 57])
    found_NL = written(tiny(), torch.full((2, 10), 21), 200, starts_V=starts_V)
    assert found_NL.shape == (200, 10)
    assert bool((found_NL[:, 0] == 21).all())
    times = Counter(found_NL[:, 1:].flatten().tolist())
    assert times.keys() == {30, 31, 40, 57}
    assert chisquare(list(times.values())).pvalue > 1e-4


def test_both_texts_are_spread_evenly():
    text_NL, own_NL = torch.arange(12).reshape(12, 1), torch.arange(100, 104).reshape(4, 1)
    order = dealt(text_NL, own_NL)[:, 0].tolist()
    assert [one for one in order if one < 100] == list(range(12))
    assert [one for one in order if one >= 100] == list(range(100, 104))
    for start in range(0, 16, 4):
        assert sum(one >= 100 for one in order[start : start + 4]) == 1
