"""What is refused of pruning from shapes and configuration alone, and what the checkpoint will be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo, inspect
from app.models.shapes import expected_tensors
from app.models.steps import check_recipe
from app.models.steps.layers import relayered
from app.recipes.prune import CalibratedSparse
from app.recipes.recipe import Recipe
from tests.support.copies import Copy, edit_json

Tiny = Callable[..., Path]
RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
# Eight query heads in four groups of two.
WIDE: dict[str, Any] = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8}


def check(info: CheckpointInfo, *steps: dict[str, Any]) -> CheckpointInfo:
    return check_recipe(info, RECIPE.validate_python(steps), pointer="/r")


def refused(info: CheckpointInfo, *steps: dict[str, Any]) -> HemostatError:
    with pytest.raises(HemostatError) as caught:
        check(info, *steps)
    return caught.value


@pytest.mark.parametrize("kind", ["prune.magnitude", "prune.wanda", "prune.sparsegpt", "prune.ria"])
@pytest.mark.parametrize("fields", [{"sparsity": 1.0}, {"sparsity": 0.0}, {"pattern": "4:4"}, {"pattern": "4:2"}, {}])
def test_everything_or_nothing_is_no_share(kind: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RECIPE.validate_python([{"type": kind} | fields])


@pytest.mark.parametrize("kind", ["prune.magnitude", "prune.wanda", "prune.sparsegpt", "prune.ria"])
@pytest.mark.parametrize("strength", [{"sparsity": 0.5}, {"pattern": "2:4"}, {"pattern": "4:8"}])
def test_each_method_takes_a_share_or_a_pattern_with_either_allocation(
    tiny: Tiny, kind: str, strength: dict[str, Any]
) -> None:
    info = inspect(tiny())
    for allocation in ("uniform", "owl"):
        assert check(info, {"type": kind, "allocation": allocation} | strength) == info


@pytest.mark.parametrize(
    ("fields", "reach"),
    [
        ({"sparsity": 0.9}, 0.08),
        ({"pattern": "4:8"}, 0.08),
        ({"pattern": "4:8", "owl_range": 0.5}, 3 / 8),  # 1 to 7 of 8
        ({"pattern": "2:8", "owl_range": 0.5}, 1 / 8),  # 1 of 8 and no less
        ({"pattern": "6:8", "owl_range": 0.5}, 1 / 8),  # 7 of 8 and no more
        ({"pattern": "1:4"}, 0),
        ({"pattern": "3:4"}, 0),
    ],
)
def test_outliers_leave_each_layer_something_and_take_something_of_it(fields: dict[str, Any], reach: float) -> None:
    (step,) = RECIPE.validate_python([{"type": "prune.wanda", "allocation": "owl"} | fields])
    assert isinstance(step, CalibratedSparse)
    assert step.owl_reach == pytest.approx(reach)


def test_a_share_of_all_weights_together_is_none_of_each_layer() -> None:
    with pytest.raises(ValidationError, match="scope is row or layer"):
        RECIPE.validate_python([{"type": "prune.magnitude", "sparsity": 0.5, "allocation": "owl", "scope": "global"}])
    with pytest.raises(ValidationError, match="scope is row or layer"):
        RECIPE.validate_python([{"type": "prune.magnitude", "pattern": "4:8", "allocation": "owl", "scope": "global"}])


@pytest.mark.parametrize("kind", ["prune.magnitude", "prune.wanda", "prune.sparsegpt", "prune.ria"])
def test_a_pattern_must_divide(tiny: Tiny, kind: str) -> None:
    for allocation in ("uniform", "owl"):
        error = refused(inspect(tiny()), {"type": kind, "pattern": "2:5", "allocation": allocation})
        assert (error.code, error.pointer) == (ErrorCode.PATTERN_MISMATCH, "/r/0/pattern")
        assert "2, 4, 8, 16, 32, 64 divide" in error.hint


HALF: dict[str, Any] = {"sparsity": 0.5}
OWL: dict[str, Any] = HALF | {"allocation": "owl"}


@pytest.mark.parametrize("kind", ["prune.wanda", "prune.sparsegpt", "prune.ria"])
@pytest.mark.parametrize(
    ("model", "fields", "code", "field", "words"),
    [
        ("llama", HALF | {"modules": ["lm_head"]}, ErrorCode.RECIPE_NOT_APPLICABLE, "modules", "is outside"),
        ("llama", HALF | {"modules": ["q_porj"]}, ErrorCode.UNKNOWN_MODULE, "modules/0", "q_porj"),
        ("llama", HALF | {"layers": [0, 7]}, ErrorCode.UNKNOWN_MODULE, "layers/1", "no layer 7"),
        ("mixtral", HALF, ErrorCode.RECIPE_NOT_APPLICABLE, "type", "mixture of experts"),
        ("mixtral", HALF | {"modules": ["router"]}, ErrorCode.RECIPE_NOT_APPLICABLE, "type", "mixture"),
    ],
)
def test_methods_that_look_at_activations(
    tiny: Tiny, kind: str, model: str, fields: dict[str, Any], code: ErrorCode, field: str, words: str
) -> None:
    error = refused(inspect(tiny(model)), {"type": kind} | fields)
    assert (error.code, error.pointer) == (code, f"/r/0/{field}")
    assert words in error.detail
    assert error.hint


@pytest.mark.parametrize("model", ["mixtral", "llama"])
def test_magnitudes_take_anything_until_activations_decide_their_shares(tiny: Tiny, model: str) -> None:
    info, head = inspect(tiny(model)), {"modules": ["lm_head"]} if model == "llama" else {}
    check(info, {"type": "prune.magnitude"} | HALF | head)
    error = refused(info, {"type": "prune.magnitude"} | OWL | head)
    assert (error.code, error.pointer) == (
        ErrorCode.RECIPE_NOT_APPLICABLE,
        "/r/0/modules" if head else "/r/0/type",
    )


def test_an_unknown_layout_is_refused_where_it_must_be_known(copy: Copy) -> None:
    folder = copy("llama")
    edit_json(folder / "config.json", architectures=["OtherForCausalLM"])
    info = inspect(folder)
    check(info, {"type": "prune.magnitude", "sparsity": 0.5})
    for step in ({"type": "prune.wanda", "sparsity": 0.5}, {"type": "prune.layers", "layers": [0]}):
        error = refused(info, step)
        assert (error.code, error.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, "/r/0/type")
        assert "OtherForCausalLM" in error.detail


@pytest.mark.parametrize(
    ("fields", "field", "words", "hint"),
    [
        ({"layers": [0, 1, 2]}, "layers", "drops all 3 layers", "keep at least one"),
        ({"layers": [2, 0, 1, 2]}, "layers", "drops all 3 layers", "keep at least one"),
        ({"count": 3}, "count", "3 layers cannot go: the model has 3", "2 (ratio 0.6667)"),
        ({"count": 100}, "count", "100 layers cannot go", "2 (ratio 0.6667)"),
        ({"ratio": 0.9}, "ratio", "3 layers cannot go", "2 (ratio 0.6667)"),
        ({"ratio": 0.1}, "ratio", "no layer would go: the model has 3", "1 (ratio 0.3333)"),
        ({"count": 1, "modules": ["mlp"]}, "modules", "no modules", "leave modules out"),
    ],
)
def test_layers_that_cannot_go(tiny: Tiny, fields: dict[str, Any], field: str, words: str, hint: str) -> None:
    error = refused(inspect(tiny()), {"type": "prune.layers"} | fields)
    assert (error.code, error.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, f"/r/0/{field}")
    assert words in error.detail
    assert hint in error.hint


def test_a_layer_that_is_not_there(tiny: Tiny) -> None:
    error = refused(inspect(tiny()), {"type": "prune.layers", "layers": [1, 3]})
    assert (error.code, error.pointer) == (ErrorCode.UNKNOWN_MODULE, "/r/0/layers/1")


def test_layers_of_a_mixture_go_by_name_alone(tiny: Tiny) -> None:
    info = inspect(tiny("mixtral"))
    assert check(info, {"type": "prune.layers", "layers": [1]}).layers == 2
    assert "looks at activations" in refused(info, {"type": "prune.layers", "count": 1}).detail


@pytest.mark.parametrize(
    ("kind", "fields", "field", "words", "hint"),
    [
        ("llama", {"count": 3}, "count", "in groups of 2 with one key", "work: 4 (ratio 0.5)"),
        ("llama", {"count": 2}, "count", "the 6 that stay do not divide the hidden size 64", "work: 4 (ratio 0.5)"),
        ("llama", {"count": 5}, "count", "in groups of 2", "work: 4 (ratio 0.5) and 6 (ratio 0.75)"),
        ("llama", {"count": 8}, "count", "a layer has 8", "work: 6 (ratio 0.75)"),
        ("llama", {"ratio": 0.95}, "ratio", "8 attention heads cannot go", "work: 6 (ratio 0.75)"),
        ("llama", {"ratio": 0.05}, "ratio", "no attention head would go", "work: 4 (ratio 0.5)"),
        ("granite", {"count": 1}, "count", "1 attention head cannot go", "work: 2 (ratio 0.25)"),
        ("llama", {"count": 4, "layers": [0]}, "layers", "the same number from every layer", "leave layers out"),
        ("llama", {"count": 4, "modules": ["q_proj"]}, "modules", "the same number", "leave modules out"),
    ],
)
def test_heads_that_cannot_go(tiny: Tiny, kind: str, fields: dict[str, Any], field: str, words: str, hint: str) -> None:
    error = refused(inspect(tiny(kind, **WIDE)), {"type": "prune.heads"} | fields)
    assert (error.code, error.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, f"/r/0/{field}")
    assert words in error.detail
    assert hint in error.hint


def test_a_lone_group_cannot_go(tiny: Tiny) -> None:
    error = refused(inspect(tiny()), {"type": "prune.heads", "count": 1})
    assert error.hint == "no count works for this model"


def test_sliding_windows_have_no_form_in_llama(tiny: Tiny, copy: Copy) -> None:
    folder = copy("qwen2", **WIDE)
    edit_json(folder / "config.json", use_sliding_window=True)
    assert "sliding windows" in refused(inspect(folder), {"type": "prune.heads", "count": 4}).detail


@pytest.mark.parametrize(
    ("fields", "field", "hint"),
    [
        ({"count": 128}, "count", "127 (ratio 0.9922)"),
        ({"count": 5000}, "count", "127 (ratio 0.9922)"),
        ({"ratio": 0.999}, "ratio", "127 (ratio 0.9922)"),
        ({"ratio": 0.001}, "ratio", "1 (ratio 0.007812)"),
    ],
)
def test_channels_that_cannot_go(tiny: Tiny, fields: dict[str, Any], field: str, hint: str) -> None:
    error = refused(inspect(tiny()), {"type": "prune.channels"} | fields)
    assert (error.code, error.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, f"/r/0/{field}")
    assert "an MLP has 128" in error.detail
    assert hint in error.hint


@pytest.mark.parametrize("kind", ["prune.layers", "prune.heads", "prune.channels"])
def test_mixtures_lose_no_parts_by_activations(tiny: Tiny, kind: str) -> None:
    error = refused(inspect(tiny("mixtral")), {"type": kind, "count": 1})
    assert (error.code, error.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, "/r/0/type")


@pytest.mark.parametrize("kind", ["llama", "llama-untied", "qwen2", "gemma2", "granite"])
def test_what_the_checkpoint_will_be_is_what_its_configuration_calls_for(tiny: Tiny, kind: str) -> None:
    info = inspect(tiny(kind, **WIDE))
    made = check(
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
    assert refused(info, {"type": "prune.layers", "count": 2}, {"type": "prune.layers", "count": 1}).pointer == (
        "/r/1/count"
    )


def test_what_is_told_of_each_layer_goes_with_it() -> None:
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
