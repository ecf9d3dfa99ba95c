from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support.outliers import with_outliers
from tests.support.pruning import PARTS, inputs_of, load, operate
from workers.surgery.allocation_owl import kept_of_layers, outlier_ratio, owl_shares, whole_counts


def test_outliers_are_counted_against_the_mean_of_the_whole_layer():
    # the mean of all ten is 3.4; above twice that: 10 and 12
    scores = [torch.tensor([[1.0, 1.0], [1.0, 10.0]]), torch.tensor([[2.0, 2.0, 2.0, 12.0, 1.0, 2.0]])]
    assert outlier_ratio(scores, 2.0) == 0.2
    assert outlier_ratio(scores, 3.0) == pytest.approx(0.1)


def test_more_outliers_smaller_share_by_hand():
    assert owl_shares([0.1, 0.2, 0.3], [1, 1, 1], 0.5, 0.08) == pytest.approx([0.58, 0.5, 0.42])
    # three quarters of the weights are in the first layer: mean 0.15, deviations -0.05 and 0.15
    assert owl_shares([0.1, 0.3], [3, 1], 0.5, 0.09) == pytest.approx([0.53, 0.41])
    assert owl_shares([0.2, 0.2], [3, 1], 0.5, 0.08) == [0.5, 0.5]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_layers_of_more_outliers_lose_less_by_the_inputs_that_transformers_gives(copy, store, kind):
    """S − λ (D − mean D) / max |D − mean D|, D being counted in float64 over |W|·‖X‖ of all matrices of a layer, which
    have as many weights in each: as the model is, and not by its weights alone."""
    folder = with_outliers(copy(kind))
    step = {"type": "prune.wanda", "sparsity": 0.5, "allocation": "owl", "owl_threshold": 4.0, "owl_range": 0.2}
    with operate(folder, store, step) as modified:
        found = {one.name.split(".")[2]: one.nominal_sparsity for one in modified.manifest.tensors}
    model = load(folder)
    by_inputs, by_weights = [], []
    for layer in range(3):
        paths = [f"model.layers.{layer}.{'self_attn' if part[0] in 'qkvo' else 'mlp'}.{part}" for part in PARTS]
        sizes = [model.get_submodule(path).weight.data.double().abs() for path in paths]
        norms = [inputs_of(model, path).square().sum(0).sqrt() for path in paths]
        for ratios, scores in (
            (by_inputs, torch.cat([(size * norm).flatten() for size, norm in zip(sizes, norms, strict=True)])),
            (by_weights, torch.cat([size.flatten() for size in sizes])),
        ):
            ratios.append(float((scores > 4 * scores.mean()).double().mean()))

    def shares(ratios):
        apart = [ratio - sum(ratios) / 3 for ratio in ratios]
        return [0.5 - 0.2 * one / max(map(abs, apart)) for one in apart]

    assert [found[str(layer)] for layer in range(3)] == pytest.approx(shares(by_inputs), abs=0.01)
    assert max(abs(a - b) for a, b in zip(shares(by_inputs), shares(by_weights), strict=True)) > 0.03


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 5000)), min_size=1, max_size=8),
    st.floats(0.01, 0.99),
    st.floats(0, 0.5),
)
def test_shares_keep_their_mean_and_their_bounds(layers, sparsity, span):
    ratios, elements = [ratio for ratio, _ in layers], [count for _, count in layers]
    shares = owl_shares(ratios, elements, sparsity, span)
    mean = sum(share * count for share, count in zip(shares, elements, strict=True)) / sum(elements)
    assert mean == pytest.approx(sparsity, abs=1e-9)
    assert all(abs(share - sparsity) <= span + 1e-9 and -1e-9 <= share <= 1 + 1e-9 for share in shares)
    total = round(sparsity * sum(elements))
    counts = whole_counts(shares, elements, total)
    assert sum(counts) == total
    for count, share, of in zip(counts, shares, elements, strict=True):
        assert 0 <= count <= of
        assert abs(count - share * of) <= 1 + 1e-6


# ---- beside a pattern

PATTERNS = st.integers(4, 12).flatmap(lambda of: st.tuples(st.integers(2, of - 2), st.just(of)))


def test_a_share_becomes_a_whole_n_by_hand():
    # 8 · (1 − share): 4.64, 4.32, 4, 3.68, 3.36; nearest is 5 and 3 at the ends, and their mean is 4
    assert kept_of_layers([0.42, 0.46, 0.5, 0.54, 0.58], 4, 8) == [5, 4, 4, 4, 3]
    # 4.6 twice, 3.6 three times: all remainders are alike, and three of the layers are rounded up to make 20
    assert kept_of_layers([0.425, 0.425, 0.55, 0.55, 0.55], 4, 8) == [5, 5, 4, 3, 3]
    # 4.64, 3.8, 3.78, 3.78: nearest would be 5, 4, 4, 4, of mean 4.25
    assert kept_of_layers([0.42, 0.525, 0.5275, 0.5275], 4, 8) == [4, 4, 4, 4]
    assert kept_of_layers([0.3, 0.5, 0.7], 2, 4) == [3, 2, 1]
    assert kept_of_layers([0.42, 0.5, 0.58], 2, 4) == [2, 2, 2]
    # 3, 1, 1: one more has to stay somewhere, and not in the first layer, which would keep all of 4
    assert kept_of_layers([0.25, 0.75, 0.75], 2, 4) == [3, 2, 1]


@given(PATTERNS, st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0, 0.5))
def test_layers_of_one_size_have_the_largest_remainders_in_the_order_of_their_outliers(pattern, ratios, span):
    kept, of = pattern
    reach = min(span, (kept - 1) / of, (of - 1 - kept) / of)
    shares = owl_shares(ratios, [64] * len(ratios), 1 - kept / of, reach)
    found = kept_of_layers(shares, kept, of)
    assert sum(found) == kept * len(ratios)
    assert set(found) <= set(range(1, of))
    for n, share in zip(found, shares, strict=True):
        assert abs(n - of * (1 - share)) < 1 + 1e-6
    by_outliers = sorted(zip(ratios, found, strict=True))
    for (fewer, less), (more, keeps) in pairwise(by_outliers):
        assert less <= keeps or more - fewer < 1e-6


def test_equal_layers_are_told_apart_by_their_place_alone():
    shares = owl_shares([0.1, 0.1, 0.1, 0.4], [5] * 4, 0.5, 0.2625)
    # 3.3 three times, and 6.1: the last keeps 6, so the others 10 together
    assert kept_of_layers(shares, 4, 8) == [4, 3, 3, 6]
    assert whole_counts([1 - one for one in shares], [8] * 4, 16) == [4, 3, 3, 6]


def test_what_differs_by_less_than_shares_are_held_to_is_equal():
    # remainders 0.5, the later one greater by 2^-27 or by 2^-22 of a weight
    assert kept_of_layers([(8 - 4.5) / 8, (8 - 3.5 - 2**-27) / 8], 4, 8) == [5, 3]
    assert kept_of_layers([(8 - 4.5) / 8, (8 - 3.5 - 2**-22) / 8], 4, 8) == [4, 4]
