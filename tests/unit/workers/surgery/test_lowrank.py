"""Low rank against closed forms: Eckart–Young in each metric, numpy in float64, and brute force."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode
from tests.support import pruning
from tests.support.checked import checked
from tests.support.refusals import refusal_of
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.lowrank import damped, factor_bits, truncate, truncate_scaled, truncate_whitened

RANDOM = torch.Generator().manual_seed(11)
WEIGHT = torch.randn(12, 8, generator=RANDOM)
INPUTS = torch.randn(200, 8, generator=RANDOM) @ torch.randn(8, 8, generator=RANDOM)
TOKENS = torch.randint(2, 300, (8, 32), generator=RANDOM)
KINDS = ["lowrank.svd", "lowrank.asvd", "lowrank.svdllm"]


def output_error(changed):
    return float((INPUTS.double() @ (WEIGHT - changed).double().T).square().mean())


def rank_of(matrix):
    return int(np.linalg.matrix_rank(matrix.double().numpy(), tol=1e-4))


@pytest.mark.parametrize("weight", [WEIGHT, WEIGHT.T, WEIGHT[:8], WEIGHT.bfloat16()])
def test_the_plain_cut_is_numpys(weight):
    u, s, v = np.linalg.svd(weight.double().numpy(), full_matrices=False)
    expected = (u[:, :3] * s[:3]) @ v[:3]
    np.testing.assert_allclose(truncate(weight, 3).numpy(), expected, atol=1e-6)
    assert float((weight - truncate(weight, 3)).norm()) == pytest.approx(float(np.sqrt((s[3:] ** 2).sum())), rel=1e-5)


def test_each_cut_has_the_rank_and_is_whole_at_full_rank():
    moment = INPUTS.T @ INPUTS / len(INPUTS)
    scale = INPUTS.abs().mean(0)
    for cut in (
        lambda rank: truncate(WEIGHT, rank),
        lambda rank: truncate_scaled(WEIGHT, scale, rank),
        lambda rank: truncate_whitened(WEIGHT, moment, rank),
    ):
        assert rank_of(cut(3)) == 3
        torch.testing.assert_close(cut(8), WEIGHT, rtol=1e-3, atol=1e-4)


def test_whitening_gives_the_least_output_error():
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


def test_a_moment_that_is_not_positive_definite_is_made_so():
    moment = INPUTS[:3].T @ INPUTS[:3] / 3
    found, share = damped(moment)
    assert share >= 1e-4
    assert int(torch.linalg.cholesky_ex(found).info) == 0
    assert torch.isfinite(truncate_whitened(WEIGHT, found, 3)).all()
    assert damped(torch.zeros(4, 4))[0].diagonal().min() > 0


def test_bits_are_those_of_the_factors_and_never_more_than_dense():
    assert factor_bits((10, 10), 2, 16) == 16 * 2 * 20 / 100
    assert factor_bits((10, 10), 9, 16) == 16


# ---- as steps


def operate(folder, store, kind, **fields):
    text = CalibrationText(TOKENS, "text", documents=1, asked=8)
    return pruning.operate(folder, store, {"type": kind, "rank": 8} | fields, calibration=lambda _: text)


@pytest.mark.parametrize(("kind", "model"), list(zip(KINDS, ["qwen2", "llama", "gemma2"], strict=True)))
def test_linear_layers_get_the_rank_and_nothing_else_changes(tiny, store, kind, model):
    before = pruning.weights(tiny(model))
    with operate(tiny(model), store, kind) as modified:
        after = pruning.weights(modified.path)
        manifest = modified.manifest
        files = sum(file.stat().st_size for file in modified.path.glob("*.safetensors"))
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
    assert any(warning.code == "dense_product" for warning in manifest.steps[0].warnings)
    assert manifest.file_bytes == files > manifest.model_nominal_bytes


@pytest.mark.parametrize(
    ("kind", "fields"), [("lowrank.asvd", {"power": 0.5}), ("lowrank.asvd", {"power": 1.0}), ("lowrank.svdllm", {})]
)
def test_a_step_is_numpys_cut_in_its_metric(tiny, store, kind, fields):
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

    def cut(metric_II):
        u, s, v = np.linalg.svd(weight_OI @ metric_II, full_matrices=False)
        return (u[:, :4] * s[:4]) @ v[:4] @ np.linalg.inv(metric_II)

    step = {"type": kind, "rank": 4, "layers": [0], "modules": ["down_proj"]} | fields
    with pruning.operate(tiny(), store, step) as modified:
        made_OI = pruning.weights(modified.path)[f"{path}.weight"].double().numpy()

    def apart(other_OI):
        return float(np.linalg.norm(made_OI - other_OI) / np.linalg.norm(made_OI))

    assert apart(cut(metric_II)) < 0.01  # bf16 holds three digits
    assert apart(cut(np.eye(128))) > 0.05
    assert apart(cut(np.linalg.inv(metric_II))) > 0.05


def test_a_ratio_is_the_share_of_storage_that_factors_save(tiny, store):
    with operate(tiny(), store, "lowrank.svd", rank=None, ratio=0.5) as modified:
        for change in modified.manifest.tensors:
            outputs, inputs = change.shape
            rank = int(0.5 * outputs * inputs / (outputs + inputs))
            assert change.bits_per_weight == 16 * rank * (outputs + inputs) / (outputs * inputs) <= 8


def test_a_rank_that_cuts_nothing_or_all_is_refused(tiny):
    for kind in KINDS:
        for fields, field in (({"rank": 64}, "rank"), ({"rank": None, "ratio": 0.999}, "ratio")):
            error = refusal_of(checked, tiny(), {"type": kind, "rank": 8} | fields)
            assert (error.code, error.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, f"/r/0/{field}")
            assert "k_proj.weight [32, 64]" in error.detail, "the one that says what is possible"
