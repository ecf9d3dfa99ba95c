import pytest
import torch

from app.contracts.simulation import simulation_of
from app.models.checkpoint import inspect
from tests.support.compressor import inputs, oneshot
from tests.support.outliers import loud
from tests.support.pruning import rewrite
from tests.support.quantizing import divergence, operate, tensors, text
from workers.surgery.quantize_smoothquant import smoothing


def test_scales_by_hand():
    most = torch.tensor([16.0, 1.0, 0.0, 4.0])
    weights = [torch.tensor([[0.25, -1.0, 1.0, 0.0]]), torch.tensor([[0.1, 0.5, 2.0, 0.0]])]
    # √(16 / 0.25), √(1 / 1), nothing comes in, nothing goes out
    assert smoothing(most, weights, 0.5).tolist() == [8.0, 1.0, 1.0, 1.0]
    assert smoothing(most, weights, 1.0).tolist() == [16.0, 1.0, 1.0, 1.0]


BEHIND = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}


@pytest.mark.parametrize(("kind", "strength"), [("llama", 0.5), ("qwen2", 0.7)])
def test_llm_compressor_smooths_alike(copy, store, kind, strength):
    """llm-compressor takes half of max x − min x for the paper's max |x| and leaves out the halves: its s is ours times
    ((max − min) / 2 max |x|)^α · 2^(2α − 1)."""
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    source, seen = rewrite(copy(kind), loud), text(4, 64)
    mappings = [[[f"re:.*{name}" for name in names], f"re:.*{norm}"] for norm, names in BEHIND.items()]
    model, before = oneshot(source, seen.tokens_NL, SmoothQuantModifier(smoothing_strength=strength, mappings=mappings))
    theirs, entering = model.state_dict(), inputs(source, seen.tokens_NL)
    with operate(source, store, {"type": "quantize.smoothquant", "strength": strength}, seen=seen) as made:
        ours = {name: tensor.float() for name, tensor in tensors(made.path).items()}
    for norm, behind in BEHIND.items():  # of the first block: those after it see its rounding in ours
        x_TI = entering[f"model.layers.0.{behind[0]}"]
        share_I = (x_TI.amax(0) - x_TI.amin(0)) / (2 * x_TI.abs().amax(0))
        assert float(share_I.min()) < 0.95
        name = f"model.layers.0.{norm}.weight"
        expected_I = before[name] / theirs[name] / share_I**strength * 2 ** (1 - 2 * strength)
        made_I = before[name] / ours[name]
        torch.testing.assert_close(made_I, expected_I, rtol=0.02, atol=0)  # ours runs in bf16
        for one in behind:  # smoothed, then 8 bits of a bf16 scale a row, in bf16
            plain_OI = before[f"model.layers.0.{one}.weight"] * made_I
            step_O1 = plain_OI.abs().amax(1, keepdim=True) / 127
            moved_OI = (ours[f"model.layers.0.{one}.weight"] - plain_OI).abs()
            assert bool((moved_OI <= 0.51 * step_O1 + 0.006 * plain_OI.abs()).all())


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_a_model_stays_near_and_the_engine_is_told(tiny, store, kind):
    with operate(tiny(kind), store, {"type": "quantize.smoothquant"}) as made:
        assert divergence(tiny(kind), made.path) < 1e-3  # weights alone: transformers leaves activations as they are
        assert (made.manifest.scheme, made.manifest.bits_per_weight) == ("simulated", pytest.approx(8.22, abs=0.01))
        assert (made.manifest.reconstruction_error or 1) < 0.01
        section = simulation_of(inspect(made.path).config)
    (entry,) = section.activations
    assert (entry.bits, entry.dynamic, entry.symmetric, len(entry.modules)) == (8, True, True, 21)


def test_static_scales_are_the_greatest_value_after_smoothing(tiny, store):
    seen = text(4, 64)
    with operate(tiny(), store, {"type": "quantize.smoothquant", "dynamic": False}, seen=seen) as made:
        section = simulation_of(inspect(made.path).config)
        entering = inputs(made.path, seen.tokens_NL)
    scales = section.activations[0].scales
    for module, (scale, zero) in scales.items():
        # it was taken before this block's own weights were rounded
        assert scale * 127 == pytest.approx(float(entering[module].abs().max()), rel=0.05), module
        assert zero == 0
    for fused in (("q", "k", "v"), ("gate", "up")):
        names = [name for name in scales if name.startswith("model.layers.1.") and name.split(".")[-1][:-5] in fused]
        assert len({scales[name] for name in names}) == 1
