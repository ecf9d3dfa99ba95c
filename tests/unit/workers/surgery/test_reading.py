import pytest
import torch
from safetensors.torch import load_file, save_file

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import inspect
from workers.surgery.reading import check_finite, open_tensors


def test_tensors_are_read_by_name(tiny):
    expected = load_file(tiny() / "model.safetensors")
    with open_tensors(inspect(tiny()), "cpu") as reader:
        for name, tensor in expected.items():
            assert torch.equal(reader.read(name), tensor)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["model.layers.1.self_attn.v_proj.weight", "model.norm.weight"])
def test_a_value_that_is_no_number_is_found(copy, name, value):
    folder = copy()
    tensors = load_file(folder / "model.safetensors")
    index = (5, 7) if tensors[name].dim() == 2 else (7,)
    tensors[name][index] = value
    save_file(tensors, folder / "model.safetensors")
    with open_tensors(inspect(folder), "cpu") as reader, pytest.raises(HemostatError) as caught:
        reader.read(name)
    assert caught.value.code is ErrorCode.CHECKPOINT_NOT_FINITE
    assert f"tensor {name} holds 1 value that is NaN or infinite, the " in caught.value.detail
    assert f"first at {list(index)}" in caught.value.detail


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_every_float_is_looked_at(dtype):
    tensor = torch.zeros(3, 3).to(dtype)
    check_finite("t", tensor)
    broken = torch.tensor([[0.0, 0.0, 0.0], [0.0, float("nan"), float("nan")], [0.0, 0.0, 0.0]]).to(dtype)
    with pytest.raises(HemostatError, match=r"tensor t holds 2 values that are NaN or infinite, the first at \[1, 1\]"):
        check_finite("t", broken)


def test_tensors_without_elements_or_dimensions():
    check_finite("t", torch.zeros(0, 3))
    check_finite("t", torch.tensor(1.0))
    with pytest.raises(HemostatError):
        check_finite("t", torch.tensor(float("nan")))


def test_a_large_tensor_is_looked_at_to_its_end():
    tensor = torch.zeros((1 << 24) + 5, dtype=torch.bfloat16)
    tensor[-1] = float("inf")
    with pytest.raises(HemostatError, match=f"first at \\[{(1 << 24) + 4}\\]"):
        check_finite("t", tensor)
