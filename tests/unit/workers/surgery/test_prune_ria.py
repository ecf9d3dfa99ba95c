import pytest
import torch

from app.recipes.prune import PruneRia
from tests.support.pruning import inputs_of, load, operate, weights
from workers.surgery.prune_masks import Quota
from workers.surgery.prune_ria import Ria, ria_score
from workers.surgery.store import CheckpointStore

HAND = torch.tensor([[1.0, -1.0, 2.0, 0.0], [3.0, 1.0, 0.0, 4.0], [2.0, 2.0, 2.0, 2.0], [-2.0, 4.0, 4.0, 2.0]])


def test_relative_importance_by_hand():
    # sums of rows 4 8 8 12, of columns 8 8 8 8
    norm_I = torch.tensor([4.0, 1.0, 1.0, 9.0])
    score = ria_score(HAND, norm_I, 0.5)
    assert torch.allclose(score[0], torch.tensor([(1 / 4 + 1 / 8) * 2, 3 / 8, 2 / 4 + 2 / 8, 0.0]))
    assert torch.allclose(score[3], torch.tensor([(2 / 12 + 2 / 8) * 2, 4 / 12 + 4 / 8, 10 / 12, (2 / 12 + 2 / 8) * 3]))
    step = PruneRia(type="prune.ria", sparsity=0.5)
    found = Ria(step).prune(HAND, norm_I, Quota(8, True, 0.5))
    # row 2: scores 1, .5, .5, 1.5 times; the earlier of the two equal ones and the other go
    assert found.tolist() == [[1, 0, 2, 0], [3, 0, 0, 4], [2, 0, 0, 2], [0, 0, 4, 2]]


def test_the_power_weighs_activations():
    norm_I = torch.tensor([4.0, 1.0, 1.0, 9.0])
    plain = ria_score(HAND, norm_I, 0.0)
    assert torch.allclose(ria_score(HAND, norm_I, 1.0), plain * norm_I)


def test_rows_and_columns_of_zeros_have_no_importance():
    weight = torch.zeros(2, 3)
    weight[0, 0] = 1.0
    assert ria_score(weight, torch.ones(3), 0.5).tolist() == [[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("power", [0.5, 1.0])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_a_model_loses_what_is_least_by_the_inputs_that_transformers_gives(tiny, tmp_path, kind, power):
    path = "model.layers.0.mlp.down_proj"
    step = {"type": "prune.ria", "sparsity": 0.5, "power": power, "layers": [0], "modules": ["down_proj"]}
    with operate(tiny(kind), CheckpointStore(tmp_path, 10**9), step) as modified:
        found = weights(modified.path)[f"{path}.weight"]
    model = load(tiny(kind))
    weight = model.get_submodule(path).weight.data
    size, norm_I = weight.double().abs(), inputs_of(model, path).square().sum(0).sqrt()
    score = (size / size.sum(1, keepdim=True) + size / size.sum(0, keepdim=True)) * norm_I**power
    expected = weight.scatter(1, score.argsort(dim=1, stable=True)[:, : weight.shape[1] // 2], 0)
    # float32 and float64 may differ on which of two nearly equal scores is smaller
    assert int((found != expected).sum()) <= 4
    by_wanda = weight.scatter(1, (size * norm_I).argsort(dim=1, stable=True)[:, : weight.shape[1] // 2], 0)
    assert int((found != by_wanda).sum()) > 40
