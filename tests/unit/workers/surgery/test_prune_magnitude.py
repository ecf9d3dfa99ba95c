"""The oracle is a stable sort of all magnitudes by numpy."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.recipes.prune import PruneMagnitude
from workers.surgery.prune_magnitude import GlobalThreshold
from workers.surgery.prune_masks import count_to_prune
from workers.surgery.steps import MagnitudeRunner

FLOATS = [torch.bfloat16, torch.float16, torch.float32]


def prune(weight, **strength):
    return MagnitudeRunner(PruneMagnitude(type="prune.magnitude", **strength)).apply("w", weight)


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def with_ties(*shape, seed):
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).float()


def smallest_gone(values, count):
    """A flat array without its `count` smallest magnitudes, the earlier of equal ones first."""
    result = values.copy()
    result[np.argsort(np.abs(values), kind="stable")[:count]] = 0
    return result


def pruned_together(weights, sparsity):
    threshold = GlobalThreshold(sparsity)
    for visit in threshold.passes():
        for index, weight in enumerate(weights):
            visit(str(index), weight)
    # in any order, each as often as one likes
    found = {index: threshold.apply(str(index), weights[index]) for index in reversed(range(len(weights)))}
    assert all(torch.equal(threshold.apply(str(index), weights[index]), found[index]) for index in found)
    return [found[index] for index in range(len(weights))]


# ---- by hand

HAND = torch.tensor([[4.0, -1.0, 2.0, -3.0], [0.5, -0.5, 0.5, 9.0], [1.0, 1.0, 1.0, 1.0], [0.0, -8.0, 7.0, 6.0]])


def test_a_share_of_each_row_by_hand():
    expected = [[4.0, 0.0, 0.0, -3.0], [0.0, 0.0, 0.5, 9.0], [0.0, 0.0, 1.0, 1.0], [0.0, -8.0, 7.0, 0.0]]
    assert prune(HAND, sparsity=0.5, scope="row").tolist() == expected


def test_a_share_of_the_matrix_by_hand():
    # eight of sixteen: 0, three halves, then four of the five ones in order of their index
    expected = [[4.0, 0.0, 2.0, -3.0], [0.0, 0.0, 0.0, 9.0], [0.0, 0.0, 0.0, 1.0], [0.0, -8.0, 7.0, 6.0]]
    assert prune(HAND, sparsity=0.5).tolist() == expected


def test_two_of_four_by_hand():
    expected = [[4.0, 0.0, 0.0, -3.0], [0.0, 0.0, 0.5, 9.0], [0.0, 0.0, 1.0, 1.0], [0.0, -8.0, 7.0, 0.0]]
    assert prune(HAND, pattern=f"{2}:{4}").tolist() == expected
    expected = [[4.0, 0.0, 0.0, -3.0], [0.0, -0.5, 0.0, 9.0], [0.0, 1.0, 0.0, 1.0], [0.0, -8.0, 7.0, 0.0]]
    assert prune(HAND, pattern=f"{1}:{2}").tolist() == expected


def test_a_share_of_two_matrices_together_by_hand():
    one, two = pruned_together([torch.tensor([[1.0, -5.0]]), torch.tensor([[2.0, 1.0], [-1.0, 4.0]])], 0.5)
    assert one.tolist() == [[0.0, -5.0]]
    assert two.tolist() == [[2.0, 0.0], [0.0, 4.0]]


# ---- against the sort

SHARES = st.floats(0.001, 0.999)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 7), st.integers(1, 9), SHARES, st.integers(0, 10**6), st.booleans(), st.sampled_from(FLOATS))
def test_rows_and_matrices_lose_exactly_the_smallest(outputs, inputs, sparsity, seed, ties, dtype):
    weight = (with_ties(outputs, inputs, seed=seed) if ties else random(outputs, inputs, seed=seed)).to(dtype)
    values = weight.double().numpy()
    by_row = np.stack([smallest_gone(row, count_to_prune(sparsity, inputs)) for row in values])
    assert np.array_equal(prune(weight, sparsity=sparsity, scope="row").double().numpy(), by_row)
    whole = smallest_gone(values.reshape(-1), count_to_prune(sparsity, values.size)).reshape(values.shape)
    assert np.array_equal(prune(weight, sparsity=sparsity).double().numpy(), whole)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6), st.sampled_from(FLOATS)), min_size=1, max_size=5),
    SHARES,
    st.integers(0, 10**6),
    st.booleans(),
)
def test_several_matrices_lose_exactly_the_smallest_together(sizes, sparsity, seed, ties):
    make = with_ties if ties else random
    weights = [make(rows, columns, seed=seed + i).to(dtype) for i, (rows, columns, dtype) in enumerate(sizes)]
    flat = np.concatenate([weight.double().numpy().reshape(-1) for weight in weights])
    expected = smallest_gone(flat, count_to_prune(sparsity, flat.size))
    found = np.concatenate([weight.double().numpy().reshape(-1) for weight in pruned_together(weights, sparsity)])
    assert np.array_equal(found, expected)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(2, 8), st.data(), st.integers(0, 10**6), st.booleans())
def test_a_pattern_keeps_exactly_the_largest_of_each_block(outputs, blocks, of, data, seed, ties):
    kept = data.draw(st.integers(1, of - 1))
    weight = (with_ties if ties else random)(outputs, blocks * of, seed=seed)
    rows = weight.double().numpy().reshape(-1, of)
    expected = np.stack([smallest_gone(row, of - kept) for row in rows]).reshape(outputs, -1)
    assert np.array_equal(prune(weight, pattern=f"{kept}:{of}").double().numpy(), expected)


def test_infinitesimal_magnitudes_keep_their_order():
    weight = torch.tensor([[1e-45, 3e-45, 2e-40, -1e-38, 1.0, -3e38]])
    assert prune(weight, sparsity=0.5).tolist() == [[0.0, 0.0, 0.0, weight[0, 3].item(), 1.0, weight[0, 5].item()]]
