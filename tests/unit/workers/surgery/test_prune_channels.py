"""The oracle: the old model with the columns of `down_proj` behind the channels that went at 0."""

import pytest
import torch

from app.models.checkpoint import inspect
from tests.support.pruning import TOKENS_NL, inputs_of, load, operate

CASES = [("llama", {}), ("llama", {"mlp_bias": True}), ("qwen2", {}), ("gemma2", {}), ("llama", {"model_type": "phi3"})]


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_the_smaller_model_is_the_old_one_without_these_channels(tiny, store, kind, options):
    folder = tiny(kind, **options)
    with operate(folder, store, {"type": "prune.channels", "count": 45}) as modified:
        info, small = inspect(modified.path), load(modified.path, torch.float32)
        figures = modified.manifest.steps[0].figures
    assert info.config["intermediate_size"] == 128 - 45
    assert info.tensors["model.layers.2.mlp.down_proj.weight"].shape == (64, 83)
    judge, expected = load(folder), load(folder, torch.float32)
    for index in range(3):
        path = f"model.layers.{index}.mlp.down_proj"
        weight_OI = judge.get_submodule(path).weight.data
        added = weight_OI.double().square().sum(0) * inputs_of(judge, path).square().mean(0)
        weight_OI[:, added.argsort()[:45]] = 0
        expected.get_submodule(path).weight.data = weight_OI.float()
    with torch.no_grad():
        torch.testing.assert_close(small(TOKENS_NL).logits, expected(TOKENS_NL).logits, rtol=1e-4, atol=1e-4)
    assert figures["channels_per_layer"] == 83
    assert 0 < figures["energy_share_lost"] < 0.35


def test_a_share_is_whole_channels(tiny, store):
    with operate(tiny(), store, {"type": "prune.channels", "ratio": 0.25}) as modified:
        assert inspect(modified.path).config["intermediate_size"] == 96
        assert modified.manifest.file_bytes < inspect(tiny()).bytes
