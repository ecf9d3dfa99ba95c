"""The stream behind a layer, whole or in two parts: corrected rows by the formula, others not a bit."""

from typing import Any

import pytest
import torch
from torch import nn

from app.contracts.errors import ErrorCode, HemostatError
from workers.calibrators.blocks import NO_LIMIT, BlockCorrection, Blocks
from workers.engine.blocks import Part, check_architecture, install

D = 8
ONE = BlockCorrection(torch.randn(2, D), torch.randn(D, 2), torch.randn(D), torch.tensor(NO_LIMIT))
BLOCKS = Blocks({1: ONE}, layers=2, hidden_size=D)


class Layer(nn.Module):
    """Hands on what it is given, as so many parts of the stream."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, *stream: torch.Tensor) -> Any:
        made = tuple(part.clone() for part in stream)
        return made[0] if self.parts == 1 else made


def layers(parts: int, *corrections: Part) -> list[nn.Module]:
    model = nn.Module()
    model.model = nn.Module()
    model.model.layers = nn.ModuleList([Layer(parts), Layer(parts)])
    install(model, lambda: corrections)
    return list(model.model.layers)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("parts", [1, 2])
def test_rows_are_corrected_where_they_are_named(parts: int, dtype: torch.dtype) -> None:
    given = [torch.randn(5, D).to(dtype) for _ in range(parts)]
    rows = torch.tensor([0, 3])
    first, second = layers(parts, (BLOCKS, rows))
    untouched, found = first(*given), second(*given)
    told = [found] if parts == 1 else list(found)
    assert all(
        torch.equal(one, other) for one, other in zip([untouched] if parts == 1 else untouched, given, strict=True)
    )
    for row in range(5):
        if row in (0, 3):
            assert torch.equal(sum(told)[row], ONE(sum(given)[rows])[[0, 3].index(row)])
        else:
            assert all(torch.equal(one[row], other[row]) for one, other in zip(told, given, strict=True))


@pytest.mark.parametrize("parts", [1, 2])
def test_a_whole_batch_and_several_corrections_in_turn(parts: int) -> None:
    given = [torch.randn(5, D) for _ in range(parts)]
    found = layers(parts, (BLOCKS, None), (BLOCKS, torch.tensor([4])))[1](*given)
    told = found if parts == 1 else sum(found)
    once = ONE(sum(given))
    assert torch.equal(told[:4], once[:4])
    torch.testing.assert_close(told[4:], ONE(once[4:]))


def test_what_is_no_stream_is_refused() -> None:
    with pytest.raises(HemostatError) as caught:
        layers(3, (BLOCKS, None))[1](*[torch.zeros(5, D)] * 3)
    assert caught.value.code is ErrorCode.CHECKPOINT_UNSUPPORTED
    with pytest.raises(HemostatError) as caught:
        check_architecture("CohereForCausalLM")  # returns what entered the layer beside the stream
    assert caught.value.code is ErrorCode.CHECKPOINT_UNSUPPORTED
