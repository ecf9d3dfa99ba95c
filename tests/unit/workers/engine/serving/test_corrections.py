"""Corrections by row against a float64 loop over rows; rows without one against the head alone."""

import pytest
import torch

from tests.unit.workers.calibrators.conftest import D, V, make
from workers.calibrators.kinds import KINDS
from workers.calibrators.lowrank import LowRank
from workers.calibrators.protocol import Calibrator, RowContext
from workers.calibrators.temperature import Temperature
from workers.engine.serving.corrections import FEW_ROWS, broken_rows, correct, group

WIDTH, VOCABULARY = 24, 50


def low_rank(seed: int) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    return LowRank(
        torch.randn(WIDTH, 3, generator=generator),
        torch.randn(3, WIDTH, generator=generator),
        torch.randn(WIDTH, generator=generator),
    )


@pytest.mark.parametrize(
    "pattern", [[None] * 5, [0] * 5, [0, None, 1, 0, None], [2, 2, None, 1, 0], [2], [None]], ids=str
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_each_row_has_its_own_correction(pattern: list[int | None], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight_VD = torch.randn(VOCABULARY, WIDTH).to(dtype)
    hidden_TD = torch.randn(len(pattern), WIDTH).to(dtype)
    before = hidden_TD.clone()
    known: list[Calibrator] = [low_rank(1), Temperature(1.7), low_rank(2)]
    chosen = [None if index is None else known[index] for index in pattern]
    groups = group(chosen, torch.device("cpu"))
    contexts = [RowContext(torch.ones(len(one.indices)).long(), torch.ones(len(one.indices)).long()) for one in groups]
    logits_TV = correct(hidden_TD, groups, contexts, lambda given: given @ weight_VD.T)
    assert torch.equal(hidden_TD, before)
    plain_TV = hidden_TD @ weight_VD.T
    for row, calibrator in enumerate(chosen):
        if calibrator is None:
            assert torch.equal(logits_TV[row], plain_TV[row].to(logits_TV.dtype))
            continue
        hidden_D = hidden_TD[row].double()
        if isinstance(calibrator, LowRank):
            change_D = hidden_D @ calibrator.down_DR.double() @ calibrator.up_RD.double()
            hidden_D = hidden_D + change_D + calibrator.shift_D.double()
        expected_V = hidden_D @ weight_VD.double().T
        if isinstance(calibrator, Temperature):
            expected_V = expected_V / calibrator.temperature
        tolerance = 0.6 if dtype == torch.bfloat16 else 1e-4
        torch.testing.assert_close(logits_TV[row].double(), expected_V, atol=tolerance, rtol=2e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_with_one_correction_is_corrected_in_float32(kind: str, dtype: torch.dtype) -> None:
    """Also by a kind that makes other logits in place of those that it was given."""
    torch.manual_seed(0)
    weight_VD, hidden_TD = torch.randn(V, D).to(dtype), torch.randn(3, D).to(dtype)
    made = make(kind).to(torch.device("cpu"), dtype)
    context = RowContext(torch.tensor([1, 5, 9]), torch.tensor([0, 7, 66]))
    groups = group([made] * 3, torch.device("cpu"))
    found_TV = correct(hidden_TD, groups, [context], lambda given: given @ weight_VD.T)
    logits_TV = (made.apply_hidden(hidden_TD, context) @ weight_VD.T).float()
    assert found_TV.dtype == torch.float32
    assert torch.equal(found_TV, made.apply_logits(logits_TV, context))


class Counting(Temperature):
    """Notes on how many threads it was asked."""

    def __init__(self) -> None:
        super().__init__(2.0)
        self.threads: list[int] = []

    def apply_hidden(self, hidden_TD: torch.Tensor, context: RowContext) -> torch.Tensor:
        self.threads.append(torch.get_num_threads())
        return super().apply_hidden(hidden_TD, context)

    def apply_logits_(self, logits_TV: torch.Tensor, context: RowContext) -> torch.Tensor:
        self.threads.append(torch.get_num_threads())
        return super().apply_logits_(logits_TV, context)


@pytest.mark.parametrize(("rows", "threads"), [(1, 1), (FEW_ROWS, 1), (FEW_ROWS + 1, 3)])
def test_few_rows_are_corrected_on_one_thread_and_the_head_has_all(rows: int, threads: int) -> None:
    of_head: list[int] = []

    def head(hidden_TD: torch.Tensor) -> torch.Tensor:
        of_head.append(torch.get_num_threads())
        return hidden_TD @ torch.ones(WIDTH, VOCABULARY)

    counting, before = Counting(), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        groups = group([counting] * rows, torch.device("cpu"))
        correct(torch.randn(rows, WIDTH), groups, [RowContext(torch.ones(rows).long(), torch.ones(rows).long())], head)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert of_head == [3]
    assert counting.threads == [threads, threads]


def test_without_corrections_it_is_the_heads_own_tensor() -> None:
    made = torch.randn(3, VOCABULARY)
    assert correct(torch.randn(3, WIDTH), [], [], lambda _: made) is made


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_rows_that_are_no_distribution_are_found(dtype: torch.dtype) -> None:
    """NaN, +inf, or nothing finite; a token that cannot come, and sums beyond the largest number, are sound."""
    logits_TV = torch.randn(7, 300).to(dtype)
    logits_TV[1, 17] = float("nan")
    logits_TV[2, 299] = float("inf")
    logits_TV[3, 5] = float("-inf")
    logits_TV[4] = float("-inf")
    logits_TV[5] = 3e38
    logits_TV[6, 0], logits_TV[6, 1] = float("inf"), float("-inf")
    assert broken_rows(logits_TV) == [1, 2, 4, 6]
