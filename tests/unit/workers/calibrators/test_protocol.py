"""What every kind of calibrator promises."""

from dataclasses import fields

import pytest
import torch

from tests.unit.workers.calibrators.conftest import make
from workers.calibrators.base import Base
from workers.calibrators.kinds import KINDS
from workers.calibrators.protocol import Calibrator, RowContext

CPU = torch.device("cpu")


def both(
    calibrator: Base, hidden_TD: torch.Tensor, logits_TV: torch.Tensor, context: RowContext
) -> tuple[torch.Tensor, ...]:
    return calibrator.apply_hidden(hidden_TD, context), calibrator.apply_logits(logits_TV, context)


@pytest.mark.parametrize("kind", KINDS)
def test_is_a_calibrator_of_its_kind(kind: str) -> None:
    made = make(kind)
    assert isinstance(made, Calibrator)
    assert made.kind == kind
    assert all(isinstance(value, float | int | str | bool) for value in made.describe().values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_keeps_dtype_and_shape_and_writes_into_no_argument(
    kind: str, dtype: torch.dtype, hidden_TD: torch.Tensor, logits_TV: torch.Tensor, context: RowContext
) -> None:
    hidden_TD, logits_TV = hidden_TD.to(dtype), logits_TV.to(dtype)
    before = hidden_TD.clone(), logits_TV.clone(), context.position_T.clone(), context.token_T.clone()
    for given, made in zip(
        (hidden_TD, logits_TV), both(make(kind).to(CPU, dtype), hidden_TD, logits_TV, context), strict=True
    ):
        assert (made.dtype, made.shape) == (dtype, given.shape)
    after = (hidden_TD, logits_TV, *(getattr(context, field.name) for field in fields(context)))
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_its_batch(
    kind: str, hidden_TD: torch.Tensor, logits_TV: torch.Tensor, context: RowContext
) -> None:
    made = make(kind).to(CPU, torch.float64)
    hidden_TD, logits_TV = hidden_TD.double(), logits_TV.double()
    whole = both(made, hidden_TD, logits_TV, context)
    order = torch.randperm(len(hidden_TD), generator=torch.Generator().manual_seed(9))[:7]
    some = both(made, hidden_TD[order], logits_TV[order], context.select(order))
    for one, other in zip(whole, some, strict=True):
        torch.testing.assert_close(one[order], other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows", [0, 1, 19])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_that_may_be_written_to_become_the_same_bit_for_bit(
    kind: str, dtype: torch.dtype, rows: int, logits_TV: torch.Tensor, context: RowContext
) -> None:
    made, some = make(kind).to(CPU, dtype), torch.arange(rows)
    logits_TV, context = logits_TV.to(dtype)[some], context.select(some)
    wanted_TV = made.apply_logits(logits_TV, context)
    found_TV = made.apply_logits_(logits_TV.clone(), context)
    assert found_TV.dtype == wanted_TV.dtype
    assert torch.equal(found_TV, wanted_TV)


@pytest.mark.parametrize("kind", ["temperature", "confidence", "token_bias", "chain"])
def test_float32_logits_that_may_be_written_to_are_corrected_where_they_stand(
    kind: str, logits_TV: torch.Tensor, context: RowContext
) -> None:
    logits_TV = logits_TV.float()
    assert make(kind).apply_logits_(logits_TV, context) is logits_TV


@pytest.mark.parametrize("kind", KINDS)
def test_takes_no_rows(kind: str, hidden_TD: torch.Tensor, logits_TV: torch.Tensor, context: RowContext) -> None:
    none = torch.arange(0)
    hidden, logits = both(make(kind), hidden_TD[none], logits_TV[none], context.select(none))
    assert hidden.shape == (0, hidden_TD.shape[1])
    assert logits.shape == (0, logits_TV.shape[1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_serving_path_agrees_with_the_fitting_path(
    kind: str, hidden_TD: torch.Tensor, logits_TV: torch.Tensor, context: RowContext
) -> None:
    """bf16 as served, float32 as fitted, against float64 on the same bf16 inputs: eight and twenty-four bits."""
    hidden_TD, logits_TV = hidden_TD.bfloat16(), logits_TV.bfloat16()
    made = make(kind)
    exact = both(made.to(CPU, torch.float64), hidden_TD.double(), logits_TV.double(), context)
    for dtype, bits in ((torch.float32, 20), (torch.bfloat16, 6)):
        found = both(made.to(CPU, dtype), hidden_TD.to(dtype), logits_TV.to(dtype), context)
        for one, other in zip(found, exact, strict=True):
            largest = float(other.abs().amax())
            assert float((one.double() - other).abs().amax()) <= 2.0**-bits * largest


def test_what_does_nothing_returns_its_argument_itself(
    hidden_TD: torch.Tensor, logits_TV: torch.Tensor, context: RowContext
) -> None:
    hidden, logits = both(make("identity"), hidden_TD, logits_TV, context)
    assert hidden is hidden_TD
    assert logits is logits_TV
