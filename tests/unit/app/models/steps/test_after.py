"""What the checkpoint will be after a step, before anything is made."""

from dataclasses import replace
from math import isclose

import pytest
from pydantic import ValidationError

from app.models.checkpoint import inspect
from app.models.shapes import expected_tensors
from app.models.steps import check_one
from app.models.steps.decode import CAPS
from app.models.steps.layers import relayered
from app.models.steps.norm import EPSILON, norms_of
from app.models.strength import direction_of
from tests.support.checked import checked, recipe
from tests.support.tiny import CONFIGS
from workers.distributions.head import KNOWN

A8 = {"type": "quantize.activations", "bits": 8}


def modules_of(folder, step):
    return [weight.module for weight in check_one(inspect(folder), recipe(step)[0], pointer="/r/0")]


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_temperature_is_put_into_the_final_norm(tiny, kind):
    assert modules_of(tiny(kind), {"type": "decode.temperature", "temperature": 0.5}) == ["model.norm"]


def test_a_soft_cap_is_divided_and_nothing_else_of_a_configuration(tiny):
    def after(info, temperature):
        return checked(info, {"type": "decode.temperature", "temperature": temperature}).config

    capped = inspect(tiny("gemma2"))
    assert capped.config["final_logit_softcapping"] == 30.0
    assert after(capped, 0.5) == capped.config | {"final_logit_softcapping": 60.0}
    assert after(capped, 1.0) == capped.config
    silent = replace(capped, config={k: v for k, v in capped.config.items() if k != "final_logit_softcapping"})
    assert after(silent, 2.0) == silent.config | {"final_logit_softcapping": 15.0}, "the class has one of 30"
    off = replace(capped, config=capped.config | {"final_logit_softcapping": None})
    assert after(off, 2.0) == off.config
    for kind in ("llama", "granite", "mixtral"):
        info = inspect(tiny(kind))
        assert after(info, 0.5) == info.config, kind


def test_the_caps_are_those_that_the_head_knows():
    known = {name: treatment.cap.default for name, treatment in KNOWN.items() if treatment.cap is not None}
    assert known == CAPS


@pytest.mark.parametrize(("kind", "count"), [("llama", 2), ("qwen2", 2), ("gemma2", 4), ("mixtral", 2)])
def test_every_norm_is_known_in_the_models_order(tiny, kind, count):
    norms = norms_of(inspect(tiny(kind)))
    assert [norm.layer for norm in norms] == [layer for layer in range(3) for _ in range(count)] + [None]
    assert norms[-1].module == "model.norm"


def test_kinds_of_norms_are_names_and_dotted_ends(tiny):
    drop = {"type": "norm.drop"}
    assert modules_of(tiny(), drop | {"modules": ["1.input_layernorm"]}) == ["model.layers.1.input_layernorm"]
    assert modules_of(tiny(), drop | {"modules": ["norm"], "layers": [0]}) == ["model.norm"]
    assert "model.norm" not in modules_of(tiny(), drop | {"layers": [0]})
    assert "model.norm" in modules_of(tiny(), drop)
    assert "model.norm" not in modules_of(tiny(), {"type": "norm.tweak"})


def test_the_checkpoint_will_have_the_epsilon(tiny):
    assert checked(tiny(), {"type": "norm.epsilon", "epsilon": 0.25}).config["rms_norm_eps"] == 0.25
    assert direction_of("norm.epsilon", "epsilon").configured == EPSILON


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_the_checkpoint_will_have_the_section_and_the_same_tensors(tiny, kind):
    info = inspect(tiny(kind))
    made = checked(info, A8 | {"dynamic": False}, {"type": "quantize.kv_cache", "k_bits": 4, "layers": [1]})
    assert made.tensors is info.tensors
    section = made.config["hemostat_simulation"]
    assert len(section["activations"][0]["modules"]) == 7 * info.layers
    assert section["kv_cache"][0]["layers"] == [1]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"type": "quantize.fp8", "activations": "dynamic"}, ("float", 8, True)),
        ({"type": "quantize.fp8", "activations": "static"}, ("float", 8, False)),
        ({"type": "quantize.smoothquant", "activation_bits": 4}, ("int", 4, True)),
    ],
)
def test_simulated_activations_leave_a_section_for_the_engine(tiny, step, expected):
    step = step | {"layers": [0], "modules": ["mlp"]}
    made = checked(tiny(), step)
    (entry,) = made.config["hemostat_simulation"]["activations"]
    assert (entry.get("kind", "int"), entry["bits"], entry["dynamic"]) == expected
    assert sorted(entry["modules"]) == [f"model.layers.0.mlp.{name}_proj" for name in ("down", "gate", "up")]
    assert made.quantization is None
    if step["type"] == "quantize.fp8":
        assert "hemostat_simulation" not in checked(tiny(), step | {"activations": "none"}).config


def test_shares_of_everything_or_nothing_are_none():
    for kind in ("prune.magnitude", "prune.wanda", "prune.sparsegpt", "prune.ria"):
        for fields in ({"sparsity": 1.0}, {"sparsity": 0.0}, {"pattern": "4:4"}, {"pattern": "4:2"}, {}):
            with pytest.raises(ValidationError):
                recipe({"type": kind} | fields)
    for fields in ({"sparsity": 0.5}, {"pattern": "4:8"}):
        with pytest.raises(ValidationError, match="scope must be row or layer"):
            recipe({"type": "prune.magnitude", "allocation": "owl", "scope": "global"} | fields)


def test_outliers_leave_each_layer_something_and_take_something_of_it():
    for fields, reach in (
        ({"sparsity": 0.9}, 0.08),
        ({"pattern": "4:8"}, 0.08),
        ({"pattern": "4:8", "owl_range": 0.5}, 3 / 8),  # 1 to 7 of 8
        ({"pattern": "2:8", "owl_range": 0.5}, 1 / 8),  # 1 of 8 and no less
        ({"pattern": "6:8", "owl_range": 0.5}, 1 / 8),  # 7 of 8 and no more
        ({"pattern": "1:4"}, 0),
        ({"pattern": "3:4"}, 0),
    ):
        (step,) = recipe({"type": "prune.wanda", "allocation": "owl"} | fields)
        assert isclose(step.owl_reach, reach, rel_tol=1e-6), fields


@pytest.mark.parametrize("kind", ["llama", "llama-untied", "qwen2", "gemma2", "granite"])
def test_what_the_checkpoint_will_be_is_what_its_configuration_calls_for(tiny, kind):
    info = inspect(tiny(kind, num_attention_heads=8, num_key_value_heads=4, head_dim=8))
    made = checked(
        info,
        {"type": "prune.heads", "count": 4},
        {"type": "prune.channels", "ratio": 0.25},
        {"type": "prune.layers", "count": 1},
        {"type": "prune.wanda", "pattern": "2:4"},
    )
    shapes = expected_tensors(made.architecture, made.config)
    assert shapes == {name: tensor.shape for name, tensor in made.tensors.items()}
    assert made.tensors["model.layers.1.self_attn.q_proj.weight"].shape == (32, 64)
    assert made.tensors["model.layers.1.mlp.down_proj.weight"].shape == (64, 96)
    assert made.layers == 2
    assert made.bytes < info.bytes


def test_what_is_told_of_each_layer_goes_with_it():
    config = {
        "num_hidden_layers": 6,
        "layer_types": ["s", "f", "s", "f", "s", "f"],
        "max_window_layers": 3,
        "decoder_sparse_step": 2,
        "mlp_only_layers": [5],
    }
    made = relayered("Qwen3MoeForCausalLM", config, [1, 2, 4, 5])
    assert made["layer_types"] == ["f", "s", "s", "f"]
    assert made["max_window_layers"] == 2
    # experts were in layers 1 and 3, as 5 is dense by name: of those that stay, in the first
    assert (made["mlp_only_layers"], made["decoder_sparse_step"]) == ([1, 2, 3], 1)
    assert config["num_hidden_layers"] == 6
