"""Low rank against closed forms: Eckart–Young in each metric, numpy in float64, and brute force."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import inspect
from app.models.steps import check_recipe
from app.recipes.recipe import Recipe
from tests.support import pruning
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.lowrank import damped, factor_bits, truncate, truncate_scaled, truncate_whitened
from workers.surgery.modified import Modified
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

Tiny = Callable[..., Path]
RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
RANDOM = torch.Generator().manual_seed(11)
WEIGHT = torch.randn(12, 8, generator=RANDOM)
INPUTS = torch.randn(200, 8, generator=RANDOM) @ torch.randn(8, 8, generator=RANDOM)
TOKENS = torch.randint(2, 300, (8, 32), generator=RANDOM)
KINDS = ["lowrank.svd", "lowrank.asvd", "lowrank.svdllm"]


def output_error(changed: torch.Tensor) -> float:
    return float((INPUTS.double() @ (WEIGHT - changed).double().T).square().mean())


def rank_of(matrix: torch.Tensor) -> int:
    return int(np.linalg.matrix_rank(matrix.double().numpy(), tol=1e-4))


@pytest.mark.parametrize("weight", [WEIGHT, WEIGHT.T, WEIGHT[:8], WEIGHT.bfloat16()])
def test_the_plain_cut_is_numpys(weight: torch.Tensor) -> None:
    u, s, v = np.linalg.svd(weight.double().numpy(), full_matrices=False)
    expected = (u[:, :3] * s[:3]) @ v[:3]
    np.testing.assert_allclose(truncate(weight, 3).numpy(), expected, atol=1e-6)
    assert float((weight - truncate(weight, 3)).norm()) == pytest.approx(float(np.sqrt((s[3:] ** 2).sum())), rel=1e-5)


def test_each_cut_has_the_rank_and_is_whole_at_full_rank() -> None:
    moment = INPUTS.T @ INPUTS / len(INPUTS)
    scale = INPUTS.abs().mean(0)
    for cut in (
        lambda rank: truncate(WEIGHT, rank),
        lambda rank: truncate_scaled(WEIGHT, scale, rank),
        lambda rank: truncate_whitened(WEIGHT, moment, rank),
    ):
        assert rank_of(cut(3)) == 3
        torch.testing.assert_close(cut(8), WEIGHT, rtol=1e-3, atol=1e-4)


def test_whitening_gives_the_least_output_error() -> None:
    moment = INPUTS.T @ INPUTS / len(INPUTS)
    best = truncate_whitened(WEIGHT, moment, 3)
    assert output_error(best) < output_error(truncate_scaled(WEIGHT, INPUTS.abs().mean(0), 3))
    assert output_error(best) < output_error(truncate(WEIGHT, 3))
    # the truncated tail of the whitened spectrum is the whole error
    spectrum = np.linalg.svd(WEIGHT.double().numpy() @ np.linalg.cholesky(moment.double().numpy()), compute_uv=False)
    assert output_error(best) * 12 == pytest.approx(float((spectrum[3:] ** 2).sum()), rel=1e-4)
    for seed in range(50):  # no small step away within the same rank does better
        noise = torch.randn(12, 8, generator=torch.Generator().manual_seed(seed)) * 0.05
        assert output_error(truncate(best + noise, 3)) >= output_error(best) * (1 - 1e-6)


def test_white_inputs_make_all_three_one() -> None:
    plain = truncate(WEIGHT, 2)
    torch.testing.assert_close(truncate_scaled(WEIGHT, torch.ones(8), 2), plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(truncate_whitened(WEIGHT, torch.eye(8), 2), plain, rtol=1e-4, atol=1e-5)


def test_a_moment_that_is_not_positive_definite_is_made_so() -> None:
    moment = INPUTS[:3].T @ INPUTS[:3] / 3
    found, share = damped(moment)
    assert share >= 1e-4
    assert int(torch.linalg.cholesky_ex(found).info) == 0
    assert torch.isfinite(truncate_whitened(WEIGHT, found, 3)).all()
    assert damped(torch.zeros(4, 4))[0].diagonal().min() > 0


def test_bits_are_those_of_the_factors_and_never_more_than_dense() -> None:
    assert factor_bits((10, 10), 2, 16) == 16 * 2 * 20 / 100
    assert factor_bits((10, 10), 9, 16) == 16


# ---- as steps


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "store", 10**9)


def operate(folder: Path, store: CheckpointStore, kind: str, **fields: Any) -> Modified:
    step = {"type": kind, "rank": 8} | fields
    text = CalibrationText(TOKENS, "text", documents=1, asked=8)
    return apply(inspect(folder), RECIPE.validate_python([step]), store=store, calibration=lambda _: text)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", ["llama", "qwen2", "gemma2"])
def test_linear_layers_get_the_rank_and_nothing_else_changes(
    tiny: Tiny, store: CheckpointStore, kind: str, model: str
) -> None:
    before = load_file(tiny(model) / "model.safetensors")
    with operate(tiny(model), store, kind) as modified:
        after = load_file(modified.path / "model.safetensors")
        manifest = modified.manifest
        outputs = AutoModelForCausalLM.from_pretrained(modified.path, dtype=torch.float32)(TOKENS[:1]).logits
    assert torch.isfinite(outputs).all()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.endswith("_proj.weight")} == {c.name for c in manifest.tensors}
    for name in changed:
        spectrum = torch.linalg.svdvals(after[name].double())
        assert float(spectrum[8] / spectrum[0]) < 0.02  # what is left beyond is the rounding to bf16
    by_name = {change.name: change for change in manifest.tensors}
    up = by_name["model.layers.0.mlp.up_proj.weight"]
    assert up.bits_per_weight == 16 * 8 * (128 + 64) / (128 * 64)
    assert manifest.steps[0].figures == {"mean rank": 8.0}


def test_the_metric_that_knows_the_inputs_keeps_the_outputs_best(tiny: Tiny, store: CheckpointStore) -> None:
    reference = AutoModelForCausalLM.from_pretrained(tiny(), dtype=torch.float32)
    kept: list[torch.Tensor] = []
    reference.model.layers[0].mlp.down_proj.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    with torch.no_grad():
        reference(TOKENS)
    x_TI = kept[0].reshape(-1, 128)
    name = "model.layers.0.mlp.down_proj.weight"
    weight = reference.get_parameter(name).detach()
    errors = {}
    for kind in KINDS:
        with operate(tiny(), store, kind, layers=[0], modules=["down_proj"], rank=4) as modified:
            changed = load_file(modified.path / "model.safetensors")[name].float()
        errors[kind] = float((x_TI @ (weight - changed).T).square().mean())
    assert errors["lowrank.svdllm"] < min(errors["lowrank.svd"], errors["lowrank.asvd"])


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("lowrank.asvd", {"power": 0.5}), ("lowrank.asvd", {"power": 1.0}), ("lowrank.svdllm", {})],
)
def test_a_step_is_numpys_cut_in_its_metric(
    tiny: Tiny, store: CheckpointStore, kind: str, fields: dict[str, Any]
) -> None:
    """W' = cut(W S) S⁻¹ in float64, S of what transformers gives the layer: diag(mean |x|^power), or Cholesky's factor
    of E[x xᵀ] and a ten thousandth of its mean diagonal."""
    path = "model.layers.0.mlp.down_proj"
    x_TI = pruning.inputs_of(pruning.load(tiny()), path).numpy()
    if kind == "lowrank.asvd":
        metric_II = np.diag(np.abs(x_TI).mean(0) ** fields["power"])
    else:
        moment_II = x_TI.T @ x_TI / len(x_TI)
        metric_II = np.linalg.cholesky(moment_II + 1e-4 * np.diag(moment_II).mean() * np.eye(len(moment_II)))
    weight_OI = pruning.weights(tiny())[f"{path}.weight"].double().numpy()

    def cut(metric_II: np.ndarray) -> np.ndarray:
        u, s, v = np.linalg.svd(weight_OI @ metric_II, full_matrices=False)
        found: np.ndarray = (u[:, :4] * s[:4]) @ v[:4] @ np.linalg.inv(metric_II)
        return found

    step = {"type": kind, "rank": 4, "layers": [0], "modules": ["down_proj"]} | fields
    with pruning.operate(tiny(), store, step) as modified:
        made_OI = pruning.weights(modified.path)[f"{path}.weight"].double().numpy()

    def apart(other_OI: np.ndarray) -> float:
        return float(np.linalg.norm(made_OI - other_OI) / np.linalg.norm(made_OI))

    assert apart(cut(metric_II)) < 0.01  # bf16 holds three digits
    assert apart(cut(np.eye(128))) > 0.05
    assert apart(cut(np.linalg.inv(metric_II))) > 0.05


def test_a_ratio_is_the_share_of_storage_that_factors_save(tiny: Tiny, store: CheckpointStore) -> None:
    with operate(tiny(), store, "lowrank.svd", rank=None, ratio=0.5) as modified:
        for change in modified.manifest.tensors:
            outputs, inputs = change.shape
            rank = int(0.5 * outputs * inputs / (outputs + inputs))
            assert change.bits_per_weight == 16 * rank * (outputs + inputs) / (outputs * inputs) <= 8


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_told_that_the_dense_product_is_served_and_what_the_files_take(
    tiny: Tiny, store: CheckpointStore, kind: str
) -> None:
    with operate(tiny(), store, kind) as modified:
        manifest = modified.manifest
        files = sum(file.stat().st_size for file in modified.path.glob("*.safetensors"))
    assert any("dense product of the factors" in warning for warning in manifest.steps[0].warnings)
    assert manifest.file_bytes == files > manifest.model_nominal_bytes


def test_a_text_too_short_for_the_moment_is_told(tiny: Tiny, store: CheckpointStore) -> None:
    text = CalibrationText(TOKENS[:1, :16], "short", documents=1, asked=8)
    recipe = RECIPE.validate_python([{"type": "lowrank.svdllm", "rank": 8}])
    with apply(inspect(tiny()), recipe, store=store, calibration=lambda _: text) as modified:
        warnings = modified.manifest.steps[0].warnings
    assert any("too short" in warning and "128 inputs" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"rank": 64}, "/r/0/rank"),
        ({"rank": None, "ratio": 0.999}, "/r/0/ratio"),
    ],
)
def test_a_rank_that_cuts_nothing_or_all_is_refused(tiny: Tiny, fields: dict[str, Any], pointer: str) -> None:
    for kind in KINDS:
        recipe = RECIPE.validate_python([{"type": kind, "rank": 8} | fields])
        with pytest.raises(HemostatError) as caught:
            check_recipe(inspect(tiny()), recipe, pointer="/r")
        assert (caught.value.code, caught.value.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, pointer)
        assert "k_proj.weight [32, 64]" in caught.value.detail, "the one that says what is possible"


def test_looking_at_activations_needs_a_dense_model_and_layers(tiny: Tiny) -> None:
    mixture = RECIPE.validate_python([{"type": "lowrank.asvd", "rank": 8}])
    with pytest.raises(HemostatError, match="MixtralForCausalLM"):
        check_recipe(inspect(tiny("mixtral")), mixture, pointer="/r")
    head = RECIPE.validate_python([{"type": "lowrank.asvd", "rank": 8, "modules": ["lm_head"]}])
    with pytest.raises(HemostatError) as caught:
        check_recipe(inspect(tiny("llama-untied")), head, pointer="/r")
    assert caught.value.pointer == "/r/0/modules"
    check_recipe(inspect(tiny("mixtral")), RECIPE.validate_python([{"type": "lowrank.svd", "rank": 8}]), pointer="/r")
