"""Against llm-compressor on the same norms, by hand, and against a plain loop through transformers' model."""

import pytest
import torch

from app.recipes.prune import PruneWanda
from tests.support.pruning import PARTS, compressor, inputs_of, load, operate, weights
from workers.surgery.prune_masks import Quota
from workers.surgery.prune_wanda import Wanda, wanda_score
from workers.surgery.store import CheckpointStore


def wanda(**fields):
    return Wanda(PruneWanda.model_validate({"type": "prune.wanda"} | fields))


@pytest.mark.parametrize(("kept", "of"), [(0, 0), (2, 4), (4, 8)])
def test_what_goes_is_what_llm_compressor_takes(kept, of):
    generator = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(64, 24, bias=False)
    linear.weight = torch.nn.Parameter(torch.randn(24, 64, generator=generator), requires_grad=False)
    squares_I = torch.rand(64, generator=generator) * 5
    expected = compressor("wanda", "wanda_sparsify").sparsify_weight(
        linear, {linear: squares_I.clone()}, 0.5, of - kept if of else 0, of
    )
    quota = Quota(24 * 32, True, 0.5, (kept, of) if of else None)
    assert torch.equal(wanda(sparsity=0.5).prune(linear.weight.data, squares_I.sqrt(), quota), expected)


def test_by_hand():
    weight_OI = torch.tensor(
        [[4.0, -1.0, 2.0, -3.0], [1.0, 3.0, 2.0, -4.0], [1.0, 1.0, 1.0, 1.0], [9.0, 8.0, 7.0, 1.0]]
    )
    norm_I = torch.tensor([1.0, 2.0, 1.0, 10.0])
    # scores: 4 2 2 30 | 1 6 2 40 | 1 2 1 10 | 9 16 7 10
    assert wanda_score(weight_OI, norm_I).tolist()[3] == [9, 16, 7, 10]
    found = wanda(sparsity=0.5).prune(weight_OI, norm_I, Quota(8, True, 0.5))
    assert found.tolist() == [[4, 0, 0, -3], [0, 3, 0, -4], [0, 1, 0, 1], [0, 8, 0, 1]]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_each_block_is_judged_by_what_the_pruned_ones_before_give(tiny, tmp_path, kind):
    with operate(tiny(kind), CheckpointStore(tmp_path, 10**9), {"type": "prune.wanda", "sparsity": 0.5}) as modified:
        found = weights(modified.path)
    model = load(tiny(kind))
    for index in range(3):
        paths = [f"model.layers.{index}.{'self_attn' if part[0] in 'qkvo' else 'mlp'}.{part}" for part in PARTS]
        norms = {path: inputs_of(model, path).square().sum(0).sqrt() for path in paths}
        for path in paths:
            weight = model.get_submodule(path).weight.data
            order = (weight.double().abs() * norms[path]).argsort(dim=1, stable=True)
            expected = weight.scatter(1, order[:, : weight.shape[1] // 2], 0)
            # float32 and float64 may differ on which of two nearly equal scores is smaller
            assert int((found[f"{path}.weight"] != expected).sum()) <= 4, path
            model.get_submodule(path).weight.data = found[f"{path}.weight"]
