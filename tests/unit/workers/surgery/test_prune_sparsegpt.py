"""Against llm-compressor on the same Hessian, against the closed form of one pruned weight, and by hand."""

import pytest
import torch

from tests.support.pruning import compressor, inputs_of, load, operate, weights
from workers.surgery import prune_sparsegpt
from workers.surgery.prune_masks import Quota
from workers.surgery.prune_sparsegpt import _blocks, inverse_factor, sparsify
from workers.surgery.store import CheckpointStore


def layer(outputs, inputs, seed=0, tokens=4000):
    """(weight (O, I), second moment (I, I) of correlated inputs)."""
    generator = torch.Generator().manual_seed(seed)
    mix_II = torch.randn(inputs, inputs, generator=generator) / inputs**0.5 + torch.eye(inputs)
    x_TI = torch.randn(tokens, inputs, generator=generator) @ mix_II
    return torch.randn(outputs, inputs, generator=generator), x_TI.T @ x_TI / tokens


def oracle(weight_OI, moment_II, sparsity, kept, of):
    linear = torch.nn.Linear(weight_OI.shape[1], weight_OI.shape[0], bias=False)
    linear.weight = torch.nn.Parameter(weight_OI.clone(), requires_grad=False)
    _, pruned = compressor("sparsegpt", "sgpt_sparsify").sparsify_weight(
        linear,
        {linear: 2 * moment_II.clone()},
        sparsity=sparsity,
        prune_n=of - kept if of else 0,
        prune_m=of,
        block_size=128,
        dampening_frac=0.01,
        preserve_sparsity_mask=False,
    )
    assert isinstance(pruned, torch.Tensor)
    return pruned


@pytest.mark.parametrize(("kept", "of"), [(2, 4), (4, 8), (1, 4)])
def test_patterns_are_those_of_llm_compressor(kept, of):
    weight_OI, moment_II = layer(48, 320)
    found = sparsify(weight_OI, inverse_factor(moment_II, 0.01), Quota(0, True, 1 - kept / of, (kept, of)))
    expected = oracle(weight_OI, moment_II, 1 - kept / of, kept, of)
    assert torch.equal(found == 0, expected == 0)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert torch.equal((found != 0).reshape(-1, of).sum(1), torch.full((48 * 320 // of,), kept))


@pytest.mark.parametrize(("kept", "of"), [(3, 6), (1, 3), (100, 200)])
def test_no_group_of_a_pattern_lies_in_two_blocks(kept, of, monkeypatch):
    """Blocks are for speed alone: with all columns in one block the result is the same."""
    weight_OI, moment_II = layer(16, 600)
    inverse, quota = inverse_factor(moment_II, 0.01), Quota(0, True, 1 - kept / of, (kept, of))
    found = sparsify(weight_OI, inverse, quota)
    assert [end % of for _, end in _blocks(600, quota)] == [0] * -(-600 // max(of, 128))
    monkeypatch.setattr(prune_sparsegpt, "COLUMNS", 600)
    torch.testing.assert_close(found, sparsify(weight_OI, inverse, quota), rtol=1e-3, atol=1e-3)
    assert torch.equal((found != 0).reshape(-1, of).sum(1), torch.full((16 * 600 // of,), kept))


def test_blocks_of_any_share_are_as_wide_as_they_may_be():
    assert list(_blocks(300, Quota(5, by_row=False, share=0.1))) == [(0, 128), (128, 256), (256, 300)]


@pytest.mark.parametrize("sparsity", [0.5, 0.8])
def test_shares_are_those_of_llm_compressor(sparsity):
    weight_OI, moment_II = layer(48, 256)
    expected = oracle(weight_OI, moment_II, sparsity, 0, 0)
    # it takes one weight more of each block of columns than the share says
    quota = Quota(int((expected == 0).sum()), by_row=False, share=sparsity)
    assert quota.total == 2 * (int(48 * 128 * sparsity) + 1)
    found = sparsify(weight_OI, inverse_factor(moment_II, 0.01), quota)
    assert torch.equal(found == 0, expected == 0)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_the_factor_is_the_cholesky_factor_of_the_inverse():
    _, moment_II = layer(1, 96)
    inverse = inverse_factor(moment_II, 0.01)
    mean = moment_II.double().diagonal().mean()
    damped_II = moment_II.double() / mean + 0.01 * torch.eye(96, dtype=torch.float64)
    expected_II = torch.linalg.cholesky(torch.linalg.inv(damped_II), upper=True)
    torch.testing.assert_close(inverse.factor_II.double(), expected_II, rtol=1e-3, atol=1e-4)
    assert torch.equal(inverse.factor_II.tril(-1), torch.zeros(96, 96))
    assert inverse.damping == 0.01


def test_one_weight_that_goes_is_made_good_as_the_closed_form_says():
    """Optimal brain surgeon: δ = −w_q · H⁻¹_q: / H⁻¹_qq. The first column is the least, so all others may answer."""
    weight_OI, moment_II = layer(3, 12)
    weight_OI[:, 0] *= 1e-4
    weight_OI[:, 0] += 1e-6
    found = sparsify(weight_OI, inverse_factor(moment_II, 0.01), Quota(3, by_row=True, share=1 / 12))
    damped_II = moment_II.double() + 0.01 * moment_II.double().diagonal().mean() * torch.eye(12, dtype=torch.float64)
    inverse_II = torch.linalg.inv(damped_II)
    expected = weight_OI.double() - weight_OI[:, :1].double() * inverse_II[:1] / inverse_II[0, 0]
    expected[:, 0] = 0
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-7)


def test_uncorrelated_inputs_by_hand():
    """H is diagonal: nothing can be made good, and w²·H_ii decides."""
    weight_OI = torch.tensor([[4.0, 1.0, 2.0, 3.0], [1.0, 3.0, 2.0, 4.0], [1.0, 1.0, 1.0, 1.0], [9.0, 8.0, 7.0, 1.0]])
    moment_II = torch.diag(torch.tensor([1.0, 4.0, 1.0, 100.0]))
    by_row = sparsify(weight_OI, inverse_factor(moment_II, 1e-9), Quota(8, by_row=True, share=0.5))
    # scores: 16 4 4 900 | 1 36 4 1600 | 1 4 1 100 | 81 256 49 100
    expected = [[4.0, 0.0, 0.0, 3.0], [0.0, 3.0, 0.0, 4.0], [0.0, 1.0, 0.0, 1.0], [0.0, 8.0, 0.0, 1.0]]
    torch.testing.assert_close(by_row, torch.tensor(expected))
    assert torch.equal(by_row == 0, torch.tensor(expected) == 0)
    one_of_four = sparsify(weight_OI, inverse_factor(moment_II, 1e-9), Quota(12, True, 0.75, (1, 4)))
    torch.testing.assert_close(
        one_of_four,
        torch.tensor([[0.0, 0.0, 0.0, 3.0], [0.0, 0.0, 0.0, 4.0], [0.0, 0.0, 0.0, 1.0], [0.0, 8.0, 0.0, 0.0]]),
    )


@pytest.mark.parametrize(("total", "by_row"), [(30 * 101, True), (30 * 299, True), (4321, False), (0, False)])
def test_the_number_of_zeros_is_exact_over_ragged_blocks(total, by_row):
    weight_OI, moment_II = layer(30, 300)
    found = sparsify(weight_OI, inverse_factor(moment_II, 0.01), Quota(total, by_row=by_row, share=0.0))
    assert int((found == 0).sum()) == total
    if by_row:
        assert torch.equal((found == 0).sum(1), torch.full((30,), total // 30))


def test_inputs_that_are_always_zero_go_first_and_harm_nothing():
    weight_OI, moment_II = layer(8, 16)
    moment_II[:, 3] = moment_II[3, :] = 0
    inverse = inverse_factor(moment_II, 0.01)
    assert inverse.dead_I.nonzero().flatten().tolist() == [3]
    found = sparsify(weight_OI, inverse, Quota(8, by_row=True, share=1 / 16))
    assert torch.equal((found == 0).nonzero()[:, 1], torch.full((8,), 3))
    assert torch.equal(found[:, :3], weight_OI[:, :3])


def test_a_singular_hessian_is_damped_until_it_is_none():
    x_TI = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    inverse = inverse_factor(x_TI.T @ x_TI / 4, 1e-12)
    assert inverse.damping > 1e-12
    assert bool(torch.isfinite(inverse.factor_II).all())
    blank = inverse_factor(torch.zeros(5, 5), 0.01)
    assert bool(blank.dead_I.all())
    assert bool(torch.isfinite(blank.factor_II).all())


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_a_model_is_pruned_as_llm_compressor_does_it_by_the_inputs_that_transformers_gives(tiny, tmp_path, kind):
    path = "model.layers.0.mlp.down_proj"
    step = {"type": "prune.sparsegpt", "pattern": "2:4", "layers": [0], "modules": ["down_proj"]}
    with operate(tiny(kind), CheckpointStore(tmp_path, 10**9), step) as modified:
        found = weights(modified.path)[f"{path}.weight"].float()
    model = load(tiny(kind))
    x_TI = inputs_of(model, path)
    weight_OI = model.get_submodule(path).weight.data.float()
    expected = oracle(weight_OI, (x_TI.T @ x_TI / len(x_TI)).float(), 0.5, 2, 4)
    assert int(((found == 0) != (expected == 0)).sum()) <= 8  # of 8,192; the walk is in bf16, sums in another order
    assert float((found - expected).norm() / expected.norm()) < 0.02
    masked = torch.where(expected == 0, 0.0, weight_OI)
    assert float((masked - expected).norm() / expected.norm()) > 0.1
