"""The oracle: the old model with the columns of `o_proj` behind the groups that went at 0."""

import pytest
import torch

from app.contracts.errors import ErrorCode
from app.models.checkpoint import inspect
from tests.support.pruning import TOKENS_NL, inputs_of, load, operate, rewrite
from tests.support.refusals import refusal_of

# Eight query heads in four groups.
WIDE = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8}
CASES = [("llama", {}), ("qwen2", {}), ("gemma2", {}), ("granite", {}), ("llama", {"model_type": "phi3"})]


def emptied(model, gone):
    """Block by block the `gone` groups that add least to the attention's output are silenced."""
    for index in range(3):
        path = f"model.layers.{index}.self_attn.o_proj"
        x_TI, weight_OI = inputs_of(model, path), model.get_submodule(path).weight.data
        added = [(x_TI[:, i : i + 16] @ weight_OI[:, i : i + 16].double().T).square().sum() for i in range(0, 64, 16)]
        for group in torch.stack(added).argsort()[:gone].tolist():
            weight_OI[:, group * 16 : group * 16 + 16] = 0


def with_biases(folder):
    """Biases that are not 0, as trained models have."""

    def change(tensors):
        generator = torch.Generator().manual_seed(3)
        for name, tensor in tensors.items():
            if name.endswith(".bias"):
                tensors[name] = torch.randn(tensor.shape, generator=generator).to(tensor.dtype)

    return rewrite(folder, change)


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_the_smaller_model_is_the_old_one_without_these_heads(copy, store, kind, options):
    folder = with_biases(copy(kind, **WIDE, **options))
    with operate(folder, store, {"type": "prune.heads", "count": 4}) as modified:
        info, small = inspect(modified.path), load(modified.path, torch.float32)
        figures = modified.manifest.steps[0].figures
    assert (info.config["num_attention_heads"], info.config["num_key_value_heads"]) == (4, 2)
    assert info.config["head_dim"] == 8
    assert info.bytes < inspect(folder).bytes
    assert info.architecture == ("LlamaForCausalLM" if kind == "qwen2" else inspect(folder).architecture)
    judge = load(folder)
    emptied(judge, 2)
    expected = load(folder, torch.float32)
    for index in range(3):
        path = f"model.layers.{index}.self_attn.o_proj"
        expected.get_submodule(path).weight.data = judge.get_submodule(path).weight.data.float()
    with torch.no_grad():
        torch.testing.assert_close(small(TOKENS_NL).logits, expected(TOKENS_NL).logits, rtol=1e-4, atol=1e-4)
    assert figures["heads_per_layer"] == 4
    assert 0 < figures["energy_share_lost"] < 0.5


def test_a_share_is_whole_groups(tiny, store):
    with operate(tiny(**WIDE), store, {"type": "prune.heads", "ratio": 0.4}) as one:
        assert inspect(one.path).config["num_key_value_heads"] == 2
    with operate(tiny(**WIDE), store, {"type": "prune.heads", "count": 4}) as other:
        assert other.fingerprint == one.fingerprint


def test_activations_that_are_no_numbers_are_refused(copy, store):
    folder = rewrite(copy("llama", **WIDE), lambda of: of["model.layers.1.self_attn.v_proj.weight"].fill_(1e38))
    error = refusal_of(operate, folder, store, {"type": "prune.heads", "count": 4})
    assert error.code is ErrorCode.ACTIVATIONS_NOT_FINITE
    assert "layers.1.self_attn.o_proj" in error.detail
