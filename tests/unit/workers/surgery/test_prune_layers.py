from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from app.models.checkpoint import inspect
from tests.support.pruning import TOKENS_NL, load, operate, weights
from workers.surgery.store import CheckpointStore

Tiny = Callable[..., Path]
KINDS = ["llama", "qwen2", "gemma2", "llama-untied"]


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "store", 10**9)


@torch.no_grad()
def outputs_without(folder: Path, gone: set[int]) -> torch.Tensor:
    """Logits of the original model with some layers taken out of its list."""
    model = load(folder)
    model.model.layers = torch.nn.ModuleList(
        [layer for index, layer in enumerate(model.model.layers) if index not in gone]
    )
    model.model.config.num_hidden_layers = len(model.model.layers)
    types = getattr(model.config, "layer_types", None)
    if types:
        model.model.config.layer_types = [kind for index, kind in enumerate(types) if index not in gone]
    logits: torch.Tensor = model(TOKENS_NL, use_cache=False).logits
    return logits


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_named_layers_go_and_the_others_stay_as_they_were(tiny: Tiny, store: CheckpointStore, kind: str) -> None:
    before = weights(tiny(kind))
    with operate(tiny(kind), store, {"type": "prune.layers", "layers": [1]}) as modified:
        after, info = weights(modified.path), inspect(modified.path)
    assert info.layers == 2
    assert len(after) < len(before)
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name.replace("layers.1.", "layers.2.")]), name
    if kind == "gemma2":  # alternating kinds of attention: the first and the third were alike
        assert info.config["layer_types"] == ["sliding_attention", "sliding_attention"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_shorter_model_is_the_old_one_without_these_layers(tiny: Tiny, store: CheckpointStore, kind: str) -> None:
    with operate(tiny(kind), store, {"type": "prune.layers", "layers": [0]}) as modified, torch.no_grad():
        found = load(modified.path)(TOKENS_NL, use_cache=False).logits
    if kind == "gemma2":
        assert inspect_types(modified.path) == ["full_attention", "sliding_attention"]
    assert torch.equal(found, outputs_without(tiny(kind), {0}))


def inspect_types(folder: Path) -> object:
    return inspect(folder).config["layer_types"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_layers_of_least_influence_go(tiny: Tiny, store: CheckpointStore, kind: str) -> None:
    model = load(tiny(kind))
    influence = []

    def see(_: object, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
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


def test_what_was_done_before_stays_told(tiny: Tiny, store: CheckpointStore) -> None:
    rtn = {"type": "quantize.rtn", "bits": 4, "group_size": 32, "layers": [2]}
    with operate(tiny(), store, rtn, {"type": "prune.layers", "layers": [0]}) as modified:
        names = {change.name for change in modified.manifest.tensors}
        assert {name.split(".")[2] for name in names} == {"1"}
        assert modified.manifest.bits_per_weight == 4 + 20 / 32


def test_named_layers_of_a_mixture_go(tiny: Tiny, store: CheckpointStore) -> None:
    with operate(tiny("mixtral"), store, {"type": "prune.layers", "layers": [0, 2]}) as modified:
        assert inspect(modified.path).layers == 1
        assert load(modified.path)(TOKENS_NL).logits.isfinite().all()
