"""Attention distributions are transformers' own, and their divergence is scipy's."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from app.contracts.errors import ErrorCode, HemostatError
from tests.support.internals import DOCUMENT_N, TOKENS_NL, at_borders, run, whole
from tests.support.pruning import operate
from workers.diagnosis.attribute.attention import attention_shift, jensen_shannon
from workers.diagnosis.attribute.matching import Matching, match
from workers.surgery.store import CheckpointStore

SAME = Matching(((0, 0), (1, 1), (2, 2)), ())
TOKENS, DOCUMENTS = TOKENS_NL[:, :16], DOCUMENT_N


def attentions(folder):
    """(layers, N, H, Q, K) of all queries but the first, in float64."""
    found = run(whole(folder), TOKENS, output_attentions=True).attentions
    return torch.stack(found)[:, :, :, 1:].double().numpy()


@pytest.mark.parametrize("kind", ["llama", "gemma2", "qwen2"])
def test_each_layer_against_scipy_on_transformers_own_attentions(tiny, tmp_path, kind):
    folders = tiny(kind), tiny(kind, seed=3)
    with at_borders(*folders, scratch=tmp_path, tokens_NL=TOKENS) as (reference, candidate):
        found = attention_shift(reference, candidate, SAME, DOCUMENTS)
    expected = jensenshannon(attentions(folders[0]), attentions(folders[1]), axis=-1) ** 2
    np.testing.assert_allclose([layer.js.mean for layer in found.layers], expected.mean((1, 2, 3)), rtol=2e-4)
    assert found.js.mean == pytest.approx(expected.mean(), rel=2e-4)
    assert all(layer.js.ci[0] < layer.js.mean < layer.js.ci[1] for layer in found.layers)


def test_a_model_looks_where_it_looks(tiny, tmp_path):
    with at_borders(tiny("llama"), tiny("llama"), scratch=tmp_path, tokens_NL=TOKENS) as (borders, again):
        found = attention_shift(borders, again, SAME, DOCUMENTS)
        assert borders.runner.skeleton.model.config._attn_implementation == "sdpa"  # as it was
    assert found.js.mean == 0


def test_models_of_another_depth_are_compared_along_the_alignment(tiny, tmp_path):
    folder = tiny("llama")
    store = CheckpointStore(tmp_path / "store", 10**9)
    with (
        operate(folder, store, {"type": "extend.identity", "layers": [0]}) as modified,
        at_borders(folder, modified.path, scratch=tmp_path, tokens_NL=TOKENS) as (reference, candidate),
    ):
        matching = match(np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
        found = attention_shift(reference, candidate, matching, DOCUMENTS)
    assert [(layer.reference, layer.candidate) for layer in found.layers] == [(0, 0), (1, 2), (2, 3)]
    assert found.js.mean == 0


def test_other_numbers_of_heads_are_refused(tiny, tmp_path):
    folder = tiny("llama")
    store = CheckpointStore(tmp_path / "store", 10**9)
    with (
        operate(folder, store, {"type": "extend.width", "heads": 2}) as wider,
        at_borders(folder, wider.path, scratch=tmp_path, tokens_NL=TOKENS) as (reference, candidate),
        pytest.raises(HemostatError) as caught,
    ):
        attention_shift(reference, candidate, SAME, DOCUMENTS)
    assert caught.value.code == ErrorCode.RECIPE_NOT_APPLICABLE


def test_the_divergence_stays_finite_and_is_zero_for_equals():
    p = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])
    q = torch.tensor([[[0.0, 1.0], [0.5, 0.5]]])
    assert jensen_shannon(p, q)[0].tolist() == pytest.approx([np.log(2), 0], abs=1e-6)
