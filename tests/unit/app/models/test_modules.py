import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import inspect
from app.models.modules import check_step, natural_key, select, weights_of
from app.recipes.base import Step
from app.recipes.recipe import RecipeStep
from tests.support.copies import edit_json

STEP: TypeAdapter[Step] = TypeAdapter(RecipeStep)


def rtn(**fields):
    return STEP.validate_python({"type": "quantize.rtn", "bits": 4, "group_size": 32} | fields)


def prune(**fields):
    return STEP.validate_python({"type": "prune.magnitude"} | fields)


def chosen(folder, **fields):
    return [weight.name for weight in select(inspect(folder), rtn(**fields))]


def refused(folder, step, code, pointer):
    with pytest.raises(HemostatError) as caught:
        check_step(inspect(folder), step, pointer="/candidate/recipe/1")
    assert caught.value.code is code
    assert caught.value.pointer == f"/candidate/recipe{pointer}"
    return caught.value


LINEARS = {"q_proj": "self_attn", "k_proj": "self_attn", "v_proj": "self_attn", "o_proj": "self_attn"} | {
    "gate_proj": "mlp",
    "up_proj": "mlp",
    "down_proj": "mlp",
}


def linears(*kinds, layers=(0, 1, 2)):
    return {f"model.layers.{layer}.{LINEARS[kind]}.{kind}.weight" for layer in layers for kind in kinds or LINEARS}


@pytest.mark.parametrize("kind", ["llama", "llama-untied", "qwen2", "gemma2", "granite"])
def test_every_linear_layer_of_the_decoder_by_default(tiny, kind):
    assert set(chosen(tiny(kind))) == linears()


def test_experts_are_linear_layers_and_routers_are_not(tiny):
    names = chosen(tiny("mixtral"))
    assert len(names) == 3 * (4 + 4 * 3)
    assert not any("block_sparse_moe.gate" in name for name in names)
    assert chosen(tiny("mixtral"), modules=["router"], layers=[1]) == ["model.layers.1.block_sparse_moe.gate.weight"]


def test_modules_are_named_by_kind(tiny):
    for modules, expected in (
        (["q_proj"], linears("q_proj")),
        (["attention"], linears("q_proj", "k_proj", "v_proj", "o_proj")),
        (["mlp"], linears("gate_proj", "up_proj", "down_proj")),
        (["down_proj", "self_attn.v_proj"], linears("down_proj", "v_proj")),
        (["layers.1.mlp.up_proj"], linears("up_proj", layers=(1,))),
        (["lm_head"], {"lm_head.weight"}),
        (["embed_tokens"], {"model.embed_tokens.weight"}),
        (["lm_head", "k_proj"], {"lm_head.weight"} | linears("k_proj")),
    ):
        assert set(chosen(tiny("llama-untied"), modules=modules)) == expected


def test_tied_embedding_and_head_are_one_matrix(tiny):
    for kind in (["lm_head"], ["embed_tokens"], ["embed_tokens", "lm_head"]):
        assert chosen(tiny("llama"), modules=kind) == ["model.embed_tokens.weight"]


def test_mixtral_s_experts_answer_to_both_names(tiny):
    for modules, count in (
        (["w1"], 12),
        (["gate_proj"], 12),
        (["down_proj"], 12),
        (["experts"], 36),
        (["mlp"], 36),
        (["experts.0.w3"], 3),
    ):
        names = chosen(tiny("mixtral"), modules=modules)
        assert len(names) == count
        assert modules != ["down_proj"] or all(name.endswith(".w2.weight") for name in names)


# ---- refusals


@pytest.mark.parametrize("kind", ["q_prj", "Q_PROJ", "q"])
def test_an_unknown_kind_is_told_with_the_nearest(tiny, kind):
    error = refused(tiny(), rtn(modules=["mlp", kind]), ErrorCode.UNKNOWN_MODULE, "/1/modules/1")
    assert repr(kind) in error.detail
    groups = ["attention", "embed_tokens", "lm_head", "mlp"]
    assert error.hint.endswith(f"valid: {', '.join(sorted([*LINEARS, *groups]))}"), "all that the model has"
    if kind != "q":
        assert "'q_proj'" in error.hint


def test_a_packed_checkpoint_takes_no_recipe(copy):
    folder = copy()
    group = {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "int"}}
    edit_json(
        folder / "config.json",
        quantization_config={"quant_method": "compressed-tensors", "config_groups": {"g": group}},
    )
    refused(folder, rtn(), ErrorCode.RECIPE_NOT_APPLICABLE, "")


def novel(copy, name, tensor):
    folder = copy()
    edit_json(folder / "config.json", architectures=["NovelForCausalLM"])
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {name: tensor}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.1.mlp.experts.gate_up_proj", (4, 64, 128)),
        ("model.layers.1.ffn.experts.mlp.w1", (256, 64)),
        ("model.layers.1.attn.c_attn.weight", (64, 192)),
    ],
)
def test_weights_of_an_unknown_layout_are_not_passed_over(copy, name, shape):
    folder = novel(copy, name, torch.zeros(shape, dtype=torch.bfloat16))
    error = refused(folder, rtn(), ErrorCode.RECIPE_NOT_APPLICABLE, "/1")
    assert name in error.detail
    assert "q_proj" in error.hint
    assert set(chosen(folder, modules=["attention", "mlp"], layers=[0])) == linears(layers=(0,))


def test_a_weight_that_is_no_plain_float_is_refused(copy):
    folder = novel(copy, "model.layers.1.mlp.fc1.weight", torch.zeros(64, 64, dtype=torch.float64))
    error = refused(folder, rtn(), ErrorCode.RECIPE_NOT_APPLICABLE, "/1")
    assert "F64" in error.detail


def test_a_model_without_known_linear_layers(copy):
    folder = copy()
    edit_json(folder / "config.json", architectures=["NovelForCausalLM"], num_hidden_layers=1)
    save_file({"norm.weight": torch.ones(64)}, folder / "model.safetensors")
    refused(folder, rtn(), ErrorCode.RECIPE_NOT_APPLICABLE, "/1")


# ---- sizes


def test_a_group_must_divide_every_input_dimension(tiny):
    for size in (1, 32, 64, None):
        assert len(check_step(inspect(tiny()), rtn(group_size=size))) == 21
    assert len(check_step(inspect(tiny()), rtn(group_size=128, modules=["down_proj"]))) == 3
    for size, inputs in ((128, 64), (48, 128)):
        error = refused(tiny(), rtn(group_size=size), ErrorCode.GROUP_SIZE_MISMATCH, "/1/group_size")
        assert f"input dimension {inputs} of model.layers.0." in error.detail
        assert error.hint.startswith("8, 16, 32, 64 divide")


def test_m_must_divide_every_input_dimension(tiny):
    for pattern in ("2:4", "1:2", "4:8"):
        assert check_step(inspect(tiny()), prune(pattern=pattern))
    for pattern, inputs in (("2:3", 128), ("1:128", 64)):
        error = refused(tiny(), prune(pattern=pattern), ErrorCode.PATTERN_MISMATCH, "/1/pattern")
        assert f"input dimension {inputs} of" in error.detail
        assert error.hint.startswith("2, 4, 8, 16, 32, 64 divide")


def test_the_second_copy_of_a_tied_head_is_no_weight(copy):
    folder = copy()
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, folder / "model.safetensors")
    assert "lm_head.weight" not in {weight.name for weight in weights_of(inspect(folder))}


def test_places_that_are_not_there_are_refused(tiny):
    refused(tiny(), rtn(modules=["input_layernorm"]), ErrorCode.UNKNOWN_MODULE, "/1/modules/0")
    refused(tiny(), rtn(layers=[0], modules=["lm_head"]), ErrorCode.RECIPE_NOT_APPLICABLE, "/1/layers")
    assert "0 to 2" in refused(tiny(), rtn(layers=[0, 3]), ErrorCode.UNKNOWN_MODULE, "/1/layers/1").hint


def test_tensors_are_in_the_model_s_order_whatever_their_names():
    order = ["layers.2.w", "layers.10.w", "layers.b.w", "layers.².w"]
    assert sorted(set(order), key=natural_key) == order
