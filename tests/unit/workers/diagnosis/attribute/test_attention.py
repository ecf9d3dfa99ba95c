"""Attention distributions are transformers' own, and what is told of them what scipy and the definitions say."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from tests.support.internals import DOCUMENT_N, TOKENS_NL, at_borders, run, whole
from tests.support.pruning import operate
from workers.diagnosis.attribute.attention import attention_shift, distances, over_heads
from workers.diagnosis.attribute.matching import Matching, match
from workers.surgery.store import CheckpointStore

SAME = Matching(((0, 0), (1, 1), (2, 2)), (), 3.0)
TOKENS, DOCUMENTS = TOKENS_NL[:, :16], DOCUMENT_N


def attentions(folder):
    """(layers, N, H, Q, K) of all queries but the first, in float64."""
    found = run(whole(folder), TOKENS, output_attentions=True).attentions
    return torch.stack(found)[:, :, :, 1:].double().numpy()


@pytest.mark.parametrize("kind", ["llama", "gemma2", "qwen2"])
def test_each_head_against_scipy_on_transformers_own_attentions(tiny, tmp_path, kind):
    folders = tiny(kind), tiny(kind, seed=3)
    with at_borders(*folders, scratch=tmp_path, tokens_NL=TOKENS) as (reference, candidate):
        found = attention_shift(reference, candidate, SAME, DOCUMENTS)
    p, q = attentions(folders[0]), attentions(folders[1])
    queries = (1, 3)  # windows and queries
    assert found.partner_PH.tolist() == [[0, 1]] * 3
    np.testing.assert_allclose(found.kl.values(), entropy(p, q, axis=-1).mean(queries), rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(
        found.js.values(), (jensenshannon(p, q, axis=-1) ** 2).mean(queries), rtol=2e-4, atol=1e-6
    )
    np.testing.assert_allclose(found.tv.values(), np.abs(p - q).sum(-1).mean(queries) / 2, rtol=2e-4, atol=1e-6)
    distance = np.maximum(np.arange(1, 16)[:, None] - np.arange(16)[None], 0)
    for looks, dist in ((found.reference, p), (found.candidate, q)):
        np.testing.assert_allclose(looks.sink.values(), dist[..., 0].mean(queries), rtol=2e-4, atol=1e-6)
        np.testing.assert_allclose(looks.entropy.values(), entropy(dist, axis=-1).mean(queries), rtol=2e-4, atol=1e-6)
        beyond = dist[..., 1:]
        reach = (beyond * distance[:, 1:]).sum((1, 3, 4)) / beyond.sum((1, 3, 4))
        np.testing.assert_allclose(looks.reach.values(), reach, rtol=2e-4, atol=1e-6)
    by_document = found.js.top[2, 1]  # the third document is the fourth window
    np.testing.assert_allclose(by_document, (jensenshannon(p, q, axis=-1) ** 2)[1, 3].sum(-1), rtol=2e-4, atol=1e-6)


def test_a_model_looks_where_it_looks(tiny, tmp_path):
    with at_borders(tiny("llama"), tiny("llama"), scratch=tmp_path, tokens_NL=TOKENS) as (borders, again):
        found = attention_shift(borders, again, SAME, DOCUMENTS)
        assert borders.runner.skeleton.model.config._attn_implementation == "sdpa"  # as it was
    for sums in (found.kl, found.js, found.tv):
        assert not sums.top.any()


def test_models_of_another_depth_are_compared_along_the_alignment(tiny, tmp_path):
    folder = tiny("llama")
    store = CheckpointStore(tmp_path / "store", 10**9)
    with (
        operate(folder, store, {"type": "extend.identity", "layers": [0]}) as modified,
        at_borders(folder, modified.path, scratch=tmp_path, tokens_NL=TOKENS) as (reference, candidate),
    ):
        matching = match(np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
        found = attention_shift(reference, candidate, matching, DOCUMENTS)
    assert found.pairs == ((0, 0), (1, 2), (2, 3))
    assert not found.js.top.any()


def test_heads_of_another_number_are_compared_with_the_nearest(tiny, tmp_path):
    folder = tiny("llama")
    store = CheckpointStore(tmp_path / "store", 10**9)
    with (
        operate(folder, store, {"type": "extend.width", "heads": 2}) as wider,
        at_borders(folder, wider.path, scratch=tmp_path, tokens_NL=TOKENS) as (reference, candidate),
    ):
        more = attention_shift(reference, candidate, SAME, DOCUMENTS)
        fewer = attention_shift(candidate, reference, SAME, DOCUMENTS)
    assert more.js.shape == (3, 4)
    assert all(sorted(row) == [0, 0, 1, 1] for row in more.partner_PH.tolist())
    assert fewer.js.shape == (3, 2)
    assert all(len(set(row)) == 2 for row in fewer.partner_PH.tolist())
    for found in (more, fewer):
        assert found.js.values().max() < 1e-7
        assert over_heads(found.js).shape == (3,)


def test_distances_stay_finite_and_are_zero_for_equals():
    p = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])
    q = torch.tensor([[[0.0, 1.0], [0.5, 0.5]]])
    kl, js, tv = distances(p, q)
    assert kl[0].tolist() == pytest.approx([69.08, 0], abs=0.02)
    assert js[0].tolist() == pytest.approx([np.log(2), 0], abs=1e-6)
    assert tv[0].tolist() == [1, 0]
