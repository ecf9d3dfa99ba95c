"""Corrections after each block: their formula, their file, and what is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.contracts.errors import ErrorCode, HemostatError
from workers.calibrators.blocks import FORMAT, NO_LIMIT, BlockCorrection, Blocks

D, LAYERS = 24, 5
CPU = torch.device("cpu")


def correction(rank: int, seed: int = 0, limit: float = NO_LIMIT) -> BlockCorrection:
    generator = torch.Generator().manual_seed(seed)
    parts = (torch.randn(*size, generator=generator) * 0.3 for size in ((rank, D), (D, rank), (D,)))
    return BlockCorrection(*parts, torch.tensor(limit))


def blocks() -> Blocks:
    return Blocks(
        {3: correction(4, 1, limit=1.0), 0: correction(2, 2), 1: correction(0, 3)}, layers=LAYERS, hidden_size=D
    )


def plain(one: BlockCorrection, stream_TD: torch.Tensor) -> torch.Tensor:
    """The formula, number by number, in float64."""
    rows = []
    for h in stream_TD.double():
        rms = (sum(float(x) ** 2 for x in h) / D + 1e-6) ** 0.5
        low = [sum(float(a) * float(x) / rms for a, x in zip(row, h, strict=True)) for row in one.down_RD]
        up = [sum(float(a) * x for a, x in zip(row, low, strict=True)) for row in one.up_DR]
        rows.append(
            [float(x) + rms * (change + float(b)) for x, change, b in zip(h, up, one.bias_D.tolist(), strict=True)]
        )
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 300.0])
@pytest.mark.parametrize("rank", [0, 1, 4])
def test_the_formula(rank: int, scale: float) -> None:
    stream_TD = torch.randn(7, D, generator=torch.Generator().manual_seed(5)) * scale
    one = correction(rank)
    torch.testing.assert_close(one(stream_TD).double(), plain(one, stream_TD), rtol=1e-5, atol=1e-6 * scale)


def test_rows_above_the_limit_are_left_alone_to_the_bit() -> None:
    stream_TD = torch.randn(6, D, generator=torch.Generator().manual_seed(5))
    stream_TD[[1, 4]] *= 100
    made_TD, free_TD = correction(4, limit=10.0)(stream_TD), correction(4)(stream_TD)
    assert torch.equal(made_TD[[1, 4]], stream_TD[[1, 4]])
    assert torch.equal(made_TD[[0, 2, 3, 5]], free_TD[[0, 2, 3, 5]])
    assert not torch.equal(free_TD[1], stream_TD[1])


def test_a_16_bit_stream_is_rounded_once() -> None:
    stream_TD = torch.randn(50, D, generator=torch.Generator().manual_seed(6)).bfloat16()
    made_TD = correction(4)(stream_TD)
    assert made_TD.dtype == torch.bfloat16
    exact_TD = plain(correction(4), stream_TD)
    assert torch.equal(made_TD, exact_TD.to(torch.bfloat16))


def test_the_file_comes_back_as_it_was(tmp_path: Path) -> None:
    blocks().save(tmp_path / "blocks.safetensors")
    found = Blocks.load(tmp_path / "blocks.safetensors", CPU)
    assert list(found) == [0, 1, 3]
    assert (found.layers, found.hidden_size) == (LAYERS, D)
    assert [one.rank for one in found.values()] == [2, 0, 4]
    stream_TD = torch.randn(3, D)
    for block, one in blocks().items():
        assert torch.equal(found[block](stream_TD), one(stream_TD))


def test_what_is_stored_makes_the_same_again() -> None:
    made = blocks()
    again = Blocks.restore(made.describe(), made.tensors())
    stream_TD = torch.randn(3, D)
    assert all(torch.equal(again[block](stream_TD), one(stream_TD)) for block, one in made.items())
    with pytest.raises(ValueError, match="description"):
        Blocks.restore({**made.describe(), "rank": 9}, made.tensors())


def test_tensors_that_do_not_fit() -> None:
    good = correction(4)
    with pytest.raises(ValueError, match="fit together"):
        BlockCorrection(good.down_RD, good.up_DR.T, good.bias_D, good.limit)
    with pytest.raises(ValueError, match="float32"):
        BlockCorrection(good.down_RD, good.up_DR, good.bias_D.double(), good.limit)
    with pytest.raises(ValueError, match="finite"):
        BlockCorrection(good.down_RD, good.up_DR, good.bias_D / 0, good.limit)
    with pytest.raises(ValueError, match="limit"):
        BlockCorrection(good.down_RD, good.up_DR, good.bias_D, torch.tensor(torch.nan))
    with pytest.raises(ValueError, match="block 5"):
        Blocks({5: good}, layers=LAYERS, hidden_size=D)
    with pytest.raises(ValueError, match="wide"):
        Blocks({0: good}, layers=LAYERS, hidden_size=D + 1)


def refused(file: Path) -> ErrorCode:
    with pytest.raises(HemostatError) as caught:
        Blocks.load(file, CPU)
    return caught.value.code


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("blocks.0.gain", torch.zeros(D)),
        ("blocks.00.bias", torch.zeros(D)),
        ("blocks.4.down", torch.zeros(2, D)),
        ("blocks.9.bias", torch.zeros(D)),
        ("blocks.3.bias", torch.zeros(D + 1)),
        ("blocks.3.bias", torch.zeros(D, dtype=torch.bfloat16)),
        ("blocks.3.bias", torch.full((D,), torch.nan)),
        ("blocks.3.bias", torch.zeros(())),
    ],
)
def test_a_file_with_a_wrong_tensor_is_refused(name: str, tensor: torch.Tensor, tmp_path: Path) -> None:
    file = tmp_path / "blocks.safetensors"
    blocks().save(file)
    sizes = {"format": FORMAT, "hidden_size": str(D), "layers": str(LAYERS)}
    save_file(load_file(file) | {name: tensor}, file, sizes)
    assert refused(file) is ErrorCode.CHECKPOINT_CORRUPT


@pytest.mark.parametrize("told", [{}, {"format": "pt"}, {"format": FORMAT}, {"format": FORMAT, "layers": "x"}])
def test_a_file_that_does_not_say_what_it_is_is_refused(told: dict[str, str], tmp_path: Path) -> None:
    save_file({"blocks.0.bias": torch.zeros(D)}, tmp_path / "blocks.safetensors", told)
    assert refused(tmp_path / "blocks.safetensors") is ErrorCode.CHECKPOINT_CORRUPT


def test_a_file_that_is_cut_or_missing_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "blocks.safetensors"
    assert refused(file) is ErrorCode.CHECKPOINT_INCOMPLETE
    blocks().save(file)
    file.write_bytes(file.read_bytes()[:-5])
    assert refused(file) is ErrorCode.CHECKPOINT_CORRUPT
