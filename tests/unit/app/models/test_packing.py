from contextlib import nullcontext

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.models import packing
from app.models.packing import check_one_scheme, check_served, kept_packed, packings, scheme_of


def config(weights, activations=None, **more):
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}} | more


INT8 = {"num_bits": 8, "type": "int"}
INT4 = {"num_bits": 4, "type": "int", "group_size": 64}
FP8 = {"num_bits": 8, "type": "float"}
FP4 = {"num_bits": 4, "type": "float"}


def test_a_scheme_is_named_by_its_bits():
    for weights, activations, scheme in (
        (INT8, INT8, "w8a8"),
        (INT4, None, "w4a16"),
        (INT8, None, "w8a16"),
        (INT4, INT8, "w4a8"),
        (FP8, FP8, "fp8"),
        (FP8, None, "fp8a16"),
        (FP4, FP4, "fp4"),
    ):
        assert scheme_of(packings(config(weights, activations))) == scheme
    two = config(INT8, INT8)
    two["config_groups"]["group_1"] = {"weights": INT4}
    assert scheme_of(packings(two)) == "w4a16+w8a8"


@pytest.mark.parametrize(("bits", "width"), [(4, 16), (8, 32), (3, 12), (2, 8)])
def test_codes_are_packed_along_the_input(bits, width):
    (group,) = packings(config({"num_bits": bits, "type": "int"}))
    assert group.packed_shape((10, 128)) == (10, width)


@pytest.mark.parametrize(
    ("quantization", "code"),
    [
        ({"quant_method": "gptq", "bits": 4}, ErrorCode.CHECKPOINT_UNSUPPORTED),
        ({"quant_method": "bitsandbytes"}, ErrorCode.CHECKPOINT_UNSUPPORTED),
        ({}, ErrorCode.CHECKPOINT_UNSUPPORTED),
        (config(INT4, transform_config={"config_groups": {"u": {}}}), ErrorCode.CHECKPOINT_UNSUPPORTED),
        (config(INT4, sparsity_config={"format": "sparse-24-bitmask"}), ErrorCode.CHECKPOINT_UNSUPPORTED),
        ({"quant_method": "compressed-tensors"}, ErrorCode.CHECKPOINT_CORRUPT),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": 3}}, ErrorCode.CHECKPOINT_CORRUPT),
        (config(None), ErrorCode.CHECKPOINT_CORRUPT),
        (config({"num_bits": "4"}), ErrorCode.CHECKPOINT_CORRUPT),
        (config(INT4, ignore=["re:(?!lm_head).*"]), ErrorCode.CHECKPOINT_UNSUPPORTED),
        (config(INT4, ignore=["re:" + "a" * 501]), ErrorCode.CHECKPOINT_UNSUPPORTED),
    ],
)
def test_what_cannot_be_used_is_refused(quantization, code):
    with pytest.raises(HemostatError) as caught:
        packings(quantization)
    assert caught.value.code is code


@pytest.mark.parametrize(
    ("weights", "activations", "refused"),
    [(INT4, None, True), (INT4, INT8, False), (INT8, INT8, False), (FP8, FP8, False)],
)
def test_four_bit_weights_need_avx512_on_a_cpu(monkeypatch, weights, activations, refused):
    monkeypatch.setattr(packing, "is_cpu_build", lambda: True)
    monkeypatch.setattr(packing, "has_avx512", lambda: False)
    with pytest.raises(HemostatError, match="AVX-512") if refused else nullcontext() as caught:
        check_served(config(weights, activations), "llama-w4a16", pointer="/candidate/model")
    if refused:
        assert (caught.value.code, caught.value.pointer) == (ErrorCode.CHECKPOINT_UNSUPPORTED, "/candidate/model")
        assert "llama-w4a16" in caught.value.detail
    check_served(None, "plain")
    monkeypatch.setattr(packing, "has_avx512", lambda: True)
    check_served(config(weights, activations), "llama-w4a16")


@pytest.mark.parametrize("activations", [None, FP4, INT8])
def test_four_bit_floats_have_no_kernel_on_a_cpu(monkeypatch, activations):
    monkeypatch.setattr(packing, "is_cpu_build", lambda: True)
    with pytest.raises(HemostatError, match="NVFP4, MXFP4") as caught:
        check_served(config(FP4, activations), "llama-nvfp4", pointer="/candidate/model")
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.CHECKPOINT_UNSUPPORTED, "/candidate/model")
    monkeypatch.setattr(packing, "is_cpu_build", lambda: False)
    check_served(config(FP4, activations), "llama-nvfp4")


def test_what_cannot_be_unpacked_is_named():
    assert kept_packed(None) == kept_packed(config(INT4, format="pack-quantized")) == ""
    assert kept_packed(config(FP4, format="nvfp4-pack-quantized")) == "nvfp4-pack-quantized"
    mixed = config(INT4, format="mixed-precision")
    mixed["config_groups"]["group_0"]["format"] = "pack-quantized"
    mixed["config_groups"]["group_1"] = {"weights": FP4, "format": "mxfp4-pack-quantized"}
    assert kept_packed(mixed) == "mxfp4-pack-quantized"


ATTENTION = [f"model.layers.{layer}.self_attn.{one}_proj.weight_packed" for layer in (0, 1) for one in "qkvo"]
MLP = [f"model.layers.0.mlp.{one}_proj.weight_packed" for one in ("gate", "up", "down")]


def two_groups(targets, weights, ignore=()):
    made = config(INT4, ignore=["lm_head", *ignore])
    made["config_groups"]["group_1"] = {"targets": targets, "weights": weights}
    return made


@pytest.mark.parametrize(
    ("quantization", "told"),
    [
        (
            two_groups(["re:.*k_proj$"], INT8),
            "q_proj, k_proj, v_proj of model.layers.0.self_attn as one layer, but quantization_config gives them "
            "different schemes: q_proj w4a16 symmetric groups of 64, k_proj w8a16 symmetric, v_proj w4a16",
        ),
        (two_groups(["model.layers.1.self_attn.v_proj"], INT4 | {"symmetric": False}), "v_proj w4a16 asymmetric"),
        (two_groups(["re:.*up_proj"], INT4 | {"group_size": 32}), "up_proj w4a16 symmetric groups of 32"),
        (config(INT4, ignore=["lm_head", "model.layers.1.self_attn.q_proj"]), "q_proj plain, k_proj w4a16"),
    ],
)
def test_layers_that_run_as_one_have_one_scheme(quantization, told):
    with pytest.raises(HemostatError) as caught:
        check_one_scheme(quantization, [*ATTENTION, *MLP])
    assert caught.value.code is ErrorCode.CHECKPOINT_UNSUPPORTED
    assert told in caught.value.detail
