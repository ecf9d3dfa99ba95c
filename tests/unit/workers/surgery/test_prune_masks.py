"""The oracle is a stable sort by numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app.recipes.prune import PruneWanda
from workers.surgery.prune_masks import Quota, lowest, mask, quota_of, zeros_first

HAND = torch.tensor([[4.0, 1.0, 2.0, 3.0], [0.5, 0.5, 0.5, 9.0], [1.0, 1.0, 1.0, 1.0], [0.0, 8.0, 7.0, 6.0]])


def step(**fields):
    return PruneWanda.model_validate({"type": "prune.wanda"} | fields)


def test_rows_matrix_and_pattern_by_hand():
    rows = mask(HAND, Quota(8, by_row=True, share=0.5)).int().tolist()
    assert rows == [[0, 1, 1, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 1]]
    matrix = mask(HAND, Quota(8, by_row=False, share=0.5)).int().tolist()
    assert matrix == [[0, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 0, 0, 0]]
    assert mask(HAND, Quota(12, True, 0.75, (1, 4))).int().tolist() == [
        [0, 1, 1, 1],
        [1, 1, 1, 0],
        [1, 1, 1, 0],
        [1, 0, 1, 1],
    ]


def test_a_number_that_rows_cannot_share_is_met_all_the_same():
    gone = mask(HAND, Quota(7, by_row=True, share=7 / 16))
    assert gone.sum(1).tolist() == [2, 2, 2, 1]
    assert lowest(HAND, torch.tensor([0, 4, 1, 0])).sum(1).tolist() == [0, 4, 1, 0]
    assert int(lowest(HAND, torch.tensor([0, 0, 0, 0])).sum()) == 0


@given(st.integers(1, 6), st.integers(1, 9), st.data(), st.integers(0, 10**6), st.booleans())
def test_exactly_the_lowest_go_the_earlier_of_equal_ones_first(rows, columns, data, seed, ties):
    counts = data.draw(st.lists(st.integers(0, columns), min_size=rows, max_size=rows))
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 3, (rows, columns)).astype(np.float32) if ties else rng.random((rows, columns), np.float32)
    expected = np.zeros((rows, columns), dtype=bool)
    for row, count in enumerate(counts):
        expected[row, np.argsort(score[row], kind="stable")[:count]] = True
    assert np.array_equal(lowest(torch.from_numpy(score), torch.tensor(counts)).numpy(), expected)


def test_weights_that_are_zero_go_before_inputs_that_are():
    weight = torch.tensor([[0.0, 2.0, 3.0, 0.0]])
    score = weight.abs() * torch.tensor([1.0, 0.0, 1.0, 1.0])
    assert mask(zeros_first(score, weight), Quota(2, True, 0.5)).int().tolist() == [[1, 0, 0, 1]]


@pytest.mark.parametrize(
    ("fields", "scope", "total"),
    [({"sparsity": 0.3}, "row", 5 * 4), ({"sparsity": 0.3}, "layer", 18), ({"pattern": "1:4"}, "row", 45)],
)
def test_what_a_step_asks_of_a_matrix(fields, scope, total):
    # five rows of twelve: round(0.3 · 12) = 4 a row, 0.3 · 60 = 18 in all
    assert quota_of(step(**fields), 5, 12, scope=scope).total == total
