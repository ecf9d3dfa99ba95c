"""Calibrators on disk: they come back as they were, or not at all."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from app.contracts.errors import ErrorCode, HemostatError
from tests.unit.workers.calibrators.conftest import D, V, make
from workers.calibrators import storage
from workers.calibrators.kinds import KINDS
from workers.calibrators.lowrank import LowRank
from workers.calibrators.protocol import RowContext


def refused(folder: Path, **model: int) -> ErrorCode:
    with pytest.raises(HemostatError) as caught:
        storage.load(folder, **model)
    return caught.value.code


def retold(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes what calibrator.json says."""
    path = folder / storage.CALIBRATOR_FILE
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))


def swapped(folder: Path, **tensors: torch.Tensor) -> None:
    """Other tensors, with a description that fits them."""
    data = save(load_file(folder / storage.TENSORS_FILE) | tensors)
    (folder / storage.TENSORS_FILE).write_bytes(data)

    def change(told: dict[str, Any]) -> None:
        told["sha256"] = hashlib.sha256(data).hexdigest()
        for name, tensor in tensors.items():
            told["tensors"][name] = {
                "dtype": str(tensor.dtype).removeprefix("torch."),
                "shape": list(tensor.shape),
            }

    retold(folder, change)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_comes_back_as_it_was(
    kind: str,
    dtype: torch.dtype,
    tmp_path: Path,
    hidden_TD: torch.Tensor,
    logits_TV: torch.Tensor,
    context: RowContext,
) -> None:
    made = make(kind).to(torch.device("cpu"), dtype)
    back = storage.load(storage.save(made, tmp_path / "made"), hidden_size=D, vocabulary=V)
    assert back.kind == kind
    assert dict(back.describe()) == dict(made.describe())
    assert {name: t.dtype for name, t in back.tensors().items()} == {
        name: t.dtype for name, t in made.tensors().items()
    }
    assert torch.equal(back.apply_hidden(hidden_TD, context), made.apply_hidden(hidden_TD, context))
    assert torch.equal(back.apply_logits(logits_TV, context), made.apply_logits(logits_TV, context))


def test_equal_calibrators_give_equal_bytes_and_nothing_else_is_left(tmp_path: Path) -> None:
    one, other = (storage.save(make("chain"), tmp_path / name) for name in ("one", "other"))
    assert {path.name for path in tmp_path.iterdir()} == {"one", "other"}
    assert {path.name for path in one.iterdir()} == {storage.CALIBRATOR_FILE, storage.TENSORS_FILE}
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes()


def test_replaces_what_is_there(tmp_path: Path) -> None:
    folder = storage.save(make("lowrank"), tmp_path / "made")
    storage.save(make("temperature"), folder)
    assert storage.load(folder).kind == "temperature"


def test_a_number_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    bad = LowRank(torch.full((D, 1), torch.nan), torch.zeros(1, D), torch.zeros(D))
    with pytest.raises(ValueError, match="not finite"):
        storage.save(bad, tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


def test_nothing_there(tmp_path: Path) -> None:
    assert refused(tmp_path / "none") == ErrorCode.PROFILE_NOT_FOUND


@pytest.mark.parametrize("model", [{"hidden_size": D + 1}, {"vocabulary": V - 1}])
def test_another_model(model: dict[str, int], tmp_path: Path) -> None:
    folder = storage.save(make("chain"), tmp_path / "made")
    assert refused(folder, **model) == ErrorCode.PROFILE_MISMATCH


def test_a_temperature_fits_any_model(tmp_path: Path) -> None:
    folder = storage.save(make("temperature"), tmp_path / "made")
    assert storage.load(folder, hidden_size=4096, vocabulary=7).kind == "temperature"


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told.update(kind="magic"),
        lambda told: told.update(format="hemostat.calibrator/0"),
        lambda told: told.update(hidden_size=D + 1),
        lambda told: told.pop("tensors"),
        lambda told: told.pop("sha256"),
        lambda told: told["tensors"]["down_DR"].update(shape=[D, 5]),
        lambda told: told["tensors"]["down_DR"].update(dtype="float16"),
        lambda told: told["parameters"].update(rank=5),
        lambda told: told.update(parameters=None),
    ],
)
def test_a_description_that_does_not_fit(change: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    folder = storage.save(make("lowrank"), tmp_path / "made")
    retold(folder, change)
    assert refused(folder) == ErrorCode.PROFILE_CORRUPT


@pytest.mark.parametrize("text", ["", "[]", "null", '{"format": 1}', "{"])
def test_a_description_that_is_none(text: str, tmp_path: Path) -> None:
    folder = storage.save(make("lowrank"), tmp_path / "made")
    (folder / storage.CALIBRATOR_FILE).write_text(text)
    assert refused(folder) == ErrorCode.PROFILE_CORRUPT


def test_a_flipped_bit_and_a_cut_file(tmp_path: Path) -> None:
    folder = storage.save(make("lowrank"), tmp_path / "made")
    path = folder / storage.TENSORS_FILE
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert refused(folder) == ErrorCode.PROFILE_CORRUPT
    path.write_bytes(data[:-8])
    assert refused(folder) == ErrorCode.PROFILE_CORRUPT


@pytest.mark.parametrize(
    ("kind", "name", "tensor"),
    [
        ("lowrank", "down_DR", torch.full((D, 4), torch.nan)),
        ("lowrank", "up_RD", torch.full((4, D), torch.inf)),
        ("lowrank", "up_RD", torch.zeros(3, D)),
        ("lowrank", "shift_D", torch.zeros(D + 1)),
        ("lowrank", "up_RD", torch.zeros(4, D, dtype=torch.bfloat16)),
        ("token_bias", "ids_I", torch.tensor([0, 5, V])),
        ("token_bias", "ids_I", torch.tensor([5, 5, 6])),
        ("token_bias", "ids_I", torch.tensor([-1, 5, 6])),
        ("token_bias", "bias_I", torch.zeros(2)),
        ("confidence", "knots_K", torch.tensor([-1.0, -1.0, 0.0])),
        ("confidence", "log_scale_K", torch.zeros(2)),
    ],
)
def test_tensors_that_do_not_fit_are_refused(kind: str, name: str, tensor: torch.Tensor, tmp_path: Path) -> None:
    folder = storage.save(make(kind), tmp_path / "made")
    swapped(folder, **{name: tensor})
    assert refused(folder) == ErrorCode.PROFILE_CORRUPT


def test_a_tensor_is_missing(tmp_path: Path) -> None:
    folder = storage.save(make("lowrank"), tmp_path / "made")
    data = save({"down_DR": torch.zeros(D, 4)})
    (folder / storage.TENSORS_FILE).write_bytes(data)
    retold(
        folder,
        lambda told: told.update(
            sha256=hashlib.sha256(data).hexdigest(), tensors={"down_DR": {"dtype": "float32", "shape": [D, 4]}}
        ),
    )
    assert refused(folder) == ErrorCode.PROFILE_CORRUPT
