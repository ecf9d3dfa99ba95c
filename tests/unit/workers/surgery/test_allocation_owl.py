from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support.copies import copier
from tests.support.outliers import with_outliers
from tests.support.pruning import PARTS, inputs_of, load, operate
from workers.surgery.allocation_owl import outlier_ratio, owl_shares, whole_counts
from workers.surgery.store import CheckpointStore


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


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_layers_of_more_outliers_lose_less_by_the_inputs_that_transformers_gives(
    tiny: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    """S − λ (D − mean D) / max |D − mean D|, D being counted in float64 over |W|·‖X‖ of all matrices of a layer, which
    have as many weights in each: as the model is, and not by its weights alone."""
    folder = with_outliers(copier(tiny, tmp_path)(kind))
    step = {"type": "prune.wanda", "sparsity": 0.5, "allocation": "owl", "owl_threshold": 4.0, "owl_range": 0.2}
    with operate(folder, CheckpointStore(tmp_path / "store", 10**9), step) as modified:
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

    def shares(ratios: list[float]) -> list[float]:
        apart = [ratio - sum(ratios) / 3 for ratio in ratios]
        return [0.5 - 0.2 * one / max(map(abs, apart)) for one in apart]

    assert [found[str(layer)] for layer in range(3)] == pytest.approx(shares(by_inputs), abs=0.01)
    assert max(abs(a - b) for a, b in zip(shares(by_inputs), shares(by_weights), strict=True)) > 0.03


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
