from collections.abc import Callable
from itertools import combinations, combinations_with_replacement, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from app.models.checkpoint import inspect
from tests.unit.workers.mitigation.repair.support import operate
from workers.mitigation.repair.alignment import align, monotone
from workers.surgery.reading import open_tensors


@pytest.mark.parametrize("strict", [True, False])
def test_the_path_is_the_best_of_all(strict: bool) -> None:
    choices = combinations if strict else combinations_with_replacement
    for seed in range(20):
        distance = torch.rand(4, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        path = monotone(distance, strict=strict)

        def cost(columns: tuple[int, ...], of: torch.Tensor = distance) -> float:
            return sum(float(of[row, column]) for row, column in enumerate(columns))

        assert cost(tuple(path)) == pytest.approx(min(map(cost, choices(range(6), 4))))
        assert all(b > a or (b == a and not strict) for a, b in pairwise(path))


def test_more_rows_than_columns_cannot_rise() -> None:
    with pytest.raises(ValueError, match="rise"):
        monotone(torch.zeros(3, 2), strict=True)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([{"type": "prune.layers", "layers": [1, 3]}], [0, 2, 4]),
        (
            [{"type": "prune.layers", "layers": [0]}, {"type": "quantize.rtn", "bits": 3, "group_size": 32}],
            [1, 2, 3, 4],
        ),
        ([{"type": "extend.duplicate", "layers": [2]}], [0, 1, 2, 2, 3, 4]),
        ([{"type": "prune.magnitude", "sparsity": 0.5}], [0, 1, 2, 3, 4]),
    ],
)
def test_layers_are_found_again(
    tiny: Callable[..., Path], tmp_path: Path, steps: list[dict[str, Any]], expected: list[int]
) -> None:
    reference = inspect(tiny("llama", num_hidden_layers=5))
    with operate(reference.path, tmp_path / "store", *steps) as modified:
        wounded = inspect(modified.path)
        with open_tensors(wounded) as ours, open_tensors(reference) as theirs:
            assert align(wounded, ours.read, reference, theirs.read) == expected
