import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workers.surgery.allocation_owl import outlier_ratio, owl_shares, whole_counts


def test_outliers_are_counted_against_the_mean_of_the_whole_layer() -> None:
    # the mean of all ten is 3.4; above twice that: 10 and 12
    scores = [torch.tensor([[1.0, 1.0], [1.0, 10.0]]), torch.tensor([[2.0, 2.0, 2.0, 12.0, 1.0, 2.0]])]
    assert outlier_ratio(scores, 2.0) == 0.2
    assert outlier_ratio(scores, 3.0) == pytest.approx(0.1)


def test_more_outliers_smaller_share_by_hand() -> None:
    assert owl_shares([0.1, 0.2, 0.3], [1, 1, 1], 0.5, 0.08) == pytest.approx([0.58, 0.5, 0.42])
    # three quarters of the weights are in the first layer: mean 0.15, deviations -0.05 and 0.15
    assert owl_shares([0.1, 0.3], [3, 1], 0.5, 0.09) == pytest.approx([0.53, 0.41])
    assert owl_shares([0.2, 0.2], [3, 1], 0.5, 0.08) == [0.5, 0.5]


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 5000)), min_size=1, max_size=8),
    st.floats(0.01, 0.99),
    st.floats(0, 0.5),
)
def test_shares_keep_their_mean_and_their_bounds(layers: list[tuple[float, int]], sparsity: float, span: float) -> None:
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
