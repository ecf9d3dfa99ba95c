"""The stream behind a layer, whole or in two parts: corrected rows by the formula, others not a bit."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from app.contracts.errors import ErrorCode, HemostatError
from workers.calibrators.blocks import NO_LIMIT, BlockCorrection, Blocks
from workers.engine.blocks import Slots, _correct_blocks, check_architecture, correct_always

D = 8
ONE = BlockCorrection(torch.randn(2, D), torch.randn(D, 2), torch.randn(D), torch.tensor(NO_LIMIT))
OTHER = BlockCorrection(torch.randn(1, D), torch.randn(D, 1), torch.randn(D), torch.tensor(NO_LIMIT))
OTHERS = Blocks({1: OTHER}, layers=2, hidden_size=D)
BLOCKS = Blocks({1: ONE}, layers=2, hidden_size=D)


class Layer(nn.Module):
    """Hands on what it is given, as so many parts of the stream."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, *stream: torch.Tensor) -> Any:
        made = tuple(part.clone() for part in stream)
        return made[0] if self.parts == 1 else made


def model(parts: int) -> Any:
    made: Any = nn.Module()
    made.anything = nn.Parameter(torch.zeros(1))
    made.model = nn.Module()
    made.model.layers = nn.ModuleList([Layer(parts), Layer(parts)])
    return made


def slots(made: Any, *, rank: int = 2, count: int = 2) -> Slots:
    return Slots(made, "made", width=D, rows=16, count=count, rank=rank)


def drawn(parts: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [torch.randn(5, D).to(dtype) for _ in range(parts)]


def parts_of(found: Any) -> list[torch.Tensor]:
    return [found] if isinstance(found, torch.Tensor) else list(found)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("parts", [1, 2])
def test_rows_are_corrected_by_their_slot_and_others_keep_every_bit(
    parts: int, dtype: torch.dtype, compiled: bool
) -> None:
    made = model(parts)
    held = slots(made)
    first, second = made.model.layers
    run = torch.compile(second, fullgraph=True, backend="aot_eager") if compiled else second
    given = drawn(parts, dtype)
    assert all(map(torch.equal, parts_of(run(*given)), given))
    places = held.place([BLOCKS, None, OTHERS])
    held.mark([places[0], 0, places[2]])
    assert all(map(torch.equal, parts_of(first(*given)), given))
    found = parts_of(run(*given))
    for row, one in enumerate((ONE, None, OTHER, None, None)):
        if one is None:
            assert all(torch.equal(told[row], was[row]) for told, was in zip(found, given, strict=True))
        else:
            torch.testing.assert_close(sum(found)[row], one(sum(given))[row])
    held.mark([])
    assert all(map(torch.equal, parts_of(run(*given)), given))


@pytest.mark.parametrize("parts", [1, 2])
def test_rows_of_one_version_alone_get_what_they_get_beside_another(parts: int) -> None:
    made = model(parts)
    held = slots(made)
    layer, given = made.model.layers[1], drawn(parts)
    one, other = held.place([BLOCKS, OTHERS])
    rows = len(given[0])
    held.mark([one] * (rows - 1) + [other])
    beside = parts_of(layer(*(part.clone() for part in given)))
    held.mark([one] * rows)
    alone = parts_of(layer(*(part.clone() for part in given)))
    for told, was in zip(alone, beside, strict=True):
        torch.testing.assert_close(told[:-1], was[:-1])
    torch.testing.assert_close(sum(alone)[-1], ONE(sum(given))[-1])
    without = parts_of(made.model.layers[0](*(part.clone() for part in given)))
    assert all(map(torch.equal, without, given)), "a block without a correction is left alone"


def test_operations_that_a_graph_recorded_make_the_corrections_that_come_later() -> None:
    """Recorded as a CUDA graph records: on tensors at their addresses, all slots in use, no row corrected."""
    made = model(2)
    held = slots(made)
    fixed = list(made.model.layers[1].made.buffers())
    held.rows_S.fill_(1)
    recorded = make_fx(lambda kept_TD, emptied_TD: _correct_blocks(kept_TD, emptied_TD, *fixed))(*drawn(2))
    held.mark(held.place([OTHERS, None, BLOCKS]))
    emptied, kept = given = drawn(2)
    told = emptied.clone(), kept.clone()
    recorded(told[1], told[0])
    torch.testing.assert_close(sum(told)[0], OTHER(sum(given))[0])
    torch.testing.assert_close(sum(told)[2], ONE(sum(given))[2])
    for row in (1, 3, 4):
        assert all(torch.equal(one[row], other[row]) for one, other in zip(told, given, strict=True))


def test_other_corrections_take_a_slot_that_no_row_needs() -> None:
    made = model(1)
    held = slots(made)
    (given,) = drawn(1)
    assert held.place([BLOCKS, None, OTHERS, BLOCKS]) == [1, 0, 2, 1]
    third = Blocks({1: ONE, 0: OTHER}, layers=2, hidden_size=D)
    assert held.place([BLOCKS, third, OTHERS]) == [1, 0, 2]
    assert held.place([third, OTHERS]) == [1, 2]
    held.mark([1])
    torch.testing.assert_close(made.model.layers[0](given)[0], OTHER(given)[0])
    assert held.place([BLOCKS]) == [1]
    assert torch.equal(made.model.layers[0](given), given), "a block without a correction is left alone"


def test_corrections_of_all_rows_in_turn_and_none_once_they_are_removed() -> None:
    made = model(2)
    given = drawn(2)
    both = [correct_always(made, name, blocks) for name, blocks in (("a", BLOCKS), ("b", OTHERS))]
    torch.testing.assert_close(sum(made.model.layers[1](*given)), OTHER(ONE(sum(given))))
    for one in both:
        one.remove()
    assert all(map(torch.equal, made.model.layers[1](*given), given))


def test_a_row_above_the_limit_is_left_alone() -> None:
    made = model(1)
    limit = torch.tensor(1.0)
    blocks = Blocks({0: BlockCorrection(ONE.down_RD, ONE.up_DR, ONE.bias_D, limit)}, layers=2, hidden_size=D)
    correct_always(made, "made", blocks)
    given = torch.ones(2, D) * torch.tensor([[0.5], [1.5]])
    found = made.model.layers[0](given)
    assert torch.equal(found[1], given[1])
    assert not torch.equal(found[0], given[0])


def test_what_is_no_stream_is_refused() -> None:
    with pytest.raises(HemostatError) as caught:
        made = model(3)
        slots(made)
        made.model.layers[1](*[torch.zeros(5, D)] * 3)
    assert caught.value.code is ErrorCode.CHECKPOINT_UNSUPPORTED
    with pytest.raises(HemostatError) as caught:
        check_architecture("CohereForCausalLM")  # returns what entered the layer beside the stream
    assert caught.value.code is ErrorCode.CHECKPOINT_UNSUPPORTED
