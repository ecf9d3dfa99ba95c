"""What stands in a packed checkpoint, unpacked by hand and by compressed-tensors. That vLLM serves it: integration."""

import numpy as np
import pytest
import torch

from app.models.checkpoint import inspect
from app.models.steps import quantize
from tests.support.compressor import inputs
from tests.support.quantizing import operate, tensors, text
from workers.surgery import quantize_rtn
from workers.surgery.dequantize import dequantize

PACKED = {"form": "packed", "group_size": 32, "bits": 4}


def by_hand(found, module):
    """Four-bit codes, least significant first in each word, less zero points, times scales, in float64."""
    outputs, inputs = found[f"{module}.weight_shape"].tolist()
    scale = found[f"{module}.weight_scale"].double().numpy()
    codes = nibbles(found[f"{module}.weight_packed"])[:, :inputs].astype(np.float64) - 8
    if f"{module}.weight_zero_point" in found:
        zero = nibbles(found[f"{module}.weight_zero_point"].T.contiguous()).T[:outputs].astype(np.float64) - 8
        codes -= np.repeat(zero, inputs // scale.shape[1], axis=1)
    return codes * np.repeat(scale, inputs // scale.shape[1], axis=1)


def nibbles(words):
    """(rows, 8 × words) of int32 words."""
    parts = [(words.numpy().view(np.uint32) >> (4 * place)) & 15 for place in range(8)]
    return np.stack(parts, axis=-1).reshape(len(words), -1)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_four_bits_stand_as_they_are_written(tiny, shared, kind, symmetric):
    step = {"type": "quantize.rtn", "symmetric": symmetric} | PACKED
    with operate(tiny(kind), shared, step) as made:
        found, info = tensors(made.path), inspect(made.path)
        assert (info.scheme, made.manifest.scheme) == ("w4a16", "w4a16")
    for name, weight in tensors(tiny(kind)).items():
        if not name.endswith("_proj.weight"):
            assert torch.equal(found[name], weight), name
            continue
        module = name.removesuffix(".weight")
        assert name not in found
        assert (f"{module}.weight_zero_point" in found) is not symmetric
        simulated = quantize_rtn.quantize(weight.float(), bits=4, group_size=32, symmetric=symmetric)
        # the same codes, times scales of 8 bits
        np.testing.assert_allclose(by_hand(found, module), simulated.double().numpy(), rtol=2**-8, atol=0)


@pytest.mark.parametrize(
    "step",
    [
        {"type": "quantize.gptq", "symmetric": True} | PACKED,
        {"type": "quantize.gptq", "act_order": True} | PACKED,
        {"type": "quantize.awq"} | PACKED,
        {"type": "quantize.smoothquant", "form": "packed"},
        {"type": "quantize.smoothquant", "form": "packed", "bits": 4},
        {"type": "quantize.fp8", "form": "packed", "activations": "dynamic"},
    ],
)
@pytest.mark.parametrize("kind", ["qwen2", "gemma2"])
def test_packed_and_simulated_are_the_same_weights(tiny, shared, step, kind):
    simulated = step | {"form": "simulated"}
    with operate(tiny(kind), shared, step) as packed, operate(tiny(kind), shared, simulated) as other:
        with dequantize(inspect(packed.path), device="cpu", store=shared) as plain:
            one, two = tensors(plain.path), tensors(other.path)
        assert packed.manifest.bits_per_weight == other.manifest.bits_per_weight
    assert one.keys() == two.keys()
    for name, weight in one.items():
        assert torch.equal(weight, two[name]), name


def test_static_activations_have_one_scale_for_layers_of_one_input(tiny, shared, monkeypatch):
    monkeypatch.setattr(quantize, "has_amx", lambda: False)  # there vLLM does not heed them, and they are refused
    step = {"type": "quantize.smoothquant", "form": "packed", "dynamic": False}
    with operate(tiny(), shared, step) as made:
        found = tensors(made.path)
    scales = [found[f"model.layers.1.self_attn.{kind}_proj.input_scale"] for kind in "qkv"]
    assert scales[0].item() > 0
    assert torch.equal(scales[0], scales[1])
    assert torch.equal(scales[0], scales[2])


@pytest.mark.parametrize(
    ("step", "scheme"),
    [
        ({"type": "quantize.rtn", "symmetric": True} | PACKED | {"bits": 8}, "w8a16"),
        ({"type": "quantize.gptq", "symmetric": True} | PACKED | {"bits": 8, "group_size": None}, "w8a16"),
        ({"type": "quantize.fp8", "form": "packed"}, "fp8a16"),
        ({"type": "quantize.fp8", "form": "packed", "activations": "static"}, "fp8"),
    ],
)
def test_what_cuda_alone_serves_is_the_same_weights_too(tiny, shared, monkeypatch, step, scheme):
    monkeypatch.setattr(quantize, "served_devices", lambda: ("cuda",))
    with operate(tiny(), shared, step) as made:
        assert made.manifest.scheme == inspect(made.path).scheme == scheme
        bits = made.manifest.bits_per_weight
        with dequantize(inspect(made.path), device="cpu", store=shared) as plain:
            one = tensors(plain.path)
    if step["type"] == "quantize.rtn":  # simulated, its scales are not rounded to 16 bits
        for name, weight in tensors(tiny()).items():
            if name.endswith("_proj.weight"):
                simulated = quantize_rtn.quantize(weight.float(), bits=8, group_size=32, symmetric=True)
                torch.testing.assert_close(one[name].float(), simulated, rtol=2**-7, atol=0)
        return
    plain_step = step | {"form": "simulated"} | ({"activations": "none"} if step["type"] == "quantize.fp8" else {})
    with operate(tiny(), shared, plain_step) as other:
        two = tensors(other.path)
        assert other.manifest.bits_per_weight == bits
    for name, weight in one.items():
        assert torch.equal(weight, two[name]), name


def test_static_float_activations_span_the_greatest_value_on_the_text(tiny, shared, monkeypatch):
    monkeypatch.setattr(quantize, "served_devices", lambda: ("cuda",))
    step = {"type": "quantize.fp8", "form": "packed", "activations": "static", "layers": [0, 2]}
    with operate(tiny(), shared, step, seen=text(4, 64)) as made:
        found = tensors(made.path)
    entering = inputs(tiny(), text(4, 64).tokens_NL)
    scales = {name.removesuffix(".input_scale"): one for name, one in found.items() if name.endswith(".input_scale")}
    assert {name.split(".")[2] for name in scales} == {"0", "2"}
    assert len(scales) == 14
    for module, scale in scales.items():  # the walk is in bf16
        assert scale.item() * 448 == pytest.approx(float(entering[module].abs().max()), rel=0.03), module


@pytest.mark.parametrize(
    "step",
    [
        {"type": "quantize.rtn"} | PACKED,
        {"type": "quantize.rtn", "symmetric": True} | PACKED,
        {"type": "quantize.smoothquant", "form": "packed"},
        {"type": "quantize.fp8", "form": "packed", "activations": "dynamic"},
    ],
)
def test_bits_per_weight_are_what_the_files_hold(tiny, shared, step):
    with operate(tiny(), shared, step) as made:
        info, manifest = inspect(made.path), made.manifest
    elements = sum(change.elements for change in manifest.tensors)
    held = sum(tensor.bytes for name, tensor in info.tensors.items() if "_proj." in name and "shape" not in name)
    assert 8 * held / elements == manifest.bits_per_weight
    whole = sum(tensor.bytes for tensor in info.tensors.values())
    assert manifest.model_nominal_bytes == whole
    assert manifest.model_bits_per_weight == 8 * whole / info.parameters
    assert 0 <= manifest.file_bytes - whole < 20_000  # headers of the files
