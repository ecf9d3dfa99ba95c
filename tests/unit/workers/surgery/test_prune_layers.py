import pytest
import torch

from app.models.checkpoint import inspect
from tests.support.pruning import TOKENS_NL, load, operate

KINDS = ["llama", "qwen2", "gemma2", "llama-untied"]


@torch.no_grad()
def outputs_without(folder, gone):
    """Logits of the original model with some layers taken out of its list."""
    model = load(folder)
    model.model.layers = torch.nn.ModuleList(
        [layer for index, layer in enumerate(model.model.layers) if index not in gone]
    )
    model.model.config.num_hidden_layers = len(model.model.layers)
    types = getattr(model.config, "layer_types", None)
    if types:
        model.model.config.layer_types = [kind for index, kind in enumerate(types) if index not in gone]
    return model(TOKENS_NL, use_cache=False).logits


@pytest.mark.parametrize("kind", KINDS)
def test_the_shorter_model_is_the_old_one_without_these_layers(tiny, store, kind):
    with operate(tiny(kind), store, {"type": "prune.layers", "layers": [0]}) as modified, torch.no_grad():
        found = load(modified.path)(TOKENS_NL, use_cache=False).logits
    if kind == "gemma2":
        assert inspect(modified.path).config["layer_types"] == ["full_attention", "sliding_attention"]
    assert torch.equal(found, outputs_without(tiny(kind), {0}))


@pytest.mark.parametrize("kind", KINDS)
def test_the_layers_of_least_influence_go(tiny, store, kind):
    model = load(tiny(kind))
    influence = []

    def see(_, args, output):
        one, other = args[0].double(), output.double()
        cosine = (one * other).sum(-1) / (one.norm(dim=-1) * other.norm(dim=-1))
        influence.append(1 - float(cosine.mean()))

    for layer in model.model.layers:
        layer.register_forward_hook(see)
    with torch.no_grad():
        model(TOKENS_NL)
    least = min(range(3), key=lambda index: influence[index])
    with operate(tiny(kind), store, {"type": "prune.layers", "count": 1}) as modified:
        figures = modified.manifest.steps[0].figures
        fingerprint = modified.fingerprint
    assert [figures[f"influence_of_layer_{index}"] for index in range(3)] == pytest.approx(influence, abs=1e-4)  # bf16
    assert figures[f"dropped_layer_{least}"] == 1.0
    for step in ({"layers": [least]}, {"ratio": 0.34}):
        with operate(tiny(kind), store, {"type": "prune.layers"} | step) as other:
            assert other.fingerprint == fingerprint


def test_named_layers_of_a_mixture_go(tiny, store):
    with operate(tiny("mixtral"), store, {"type": "prune.layers", "layers": [0, 2]}) as modified:
        assert inspect(modified.path).layers == 1
        assert load(modified.path)(TOKENS_NL).logits.isfinite().all()
