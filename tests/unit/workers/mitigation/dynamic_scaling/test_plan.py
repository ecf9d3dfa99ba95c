"""Bits follow what units were measured to cost, and are counted whole."""

import pytest
import torch
from safetensors.torch import load_file

from tests.support.pruning import load
from tests.support.quantizing import operate, text
from workers.mitigation.dynamic_scaling import grids, plan
from workers.mitigation.dynamic_scaling.budget import allocate
from workers.mitigation.dynamic_scaling.sensitivity import Measured
from workers.surgery.quantize_grid import fit

MIXED = {"type": "quantize.dynamic", "bits": 4.5, "group_size": 32, "mixed": True, "block_epochs": 0}
LAYERS = {"num_hidden_layers": 2}
UNITS = {
    "self_attn.q_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.gate_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
}


@pytest.mark.parametrize("dear", [0, 1])
def test_the_layer_that_was_measured_to_cost_more_has_more_bits(tiny, store, monkeypatch, dear):
    """The same model, measured one way and the other."""

    def measured(_, index, changes):
        # five widths of each unit in turn
        return [(1.0 if index == dear else 1e-4) * 0.3 ** (place % 5) for place, _ in enumerate(changes)]

    monkeypatch.setattr(Measured, "layer", measured)
    with operate(tiny("llama", **LAYERS), store, MIXED) as made:
        bits = [
            sum(of.bits_per_weight for of in made.manifest.tensors if f".{layer}." in of.name and "_proj" in of.name)
            for layer in (dear, 1 - dear)
        ]
    assert bits[0] > bits[1] + 7, "of seven modules, more than a bit each"


@pytest.fixture
def told(monkeypatch):
    """(what the budget is spread over, the budget)."""
    units = {}
    budget = []

    def spread(choices, storage):
        units.update(choices)
        budget.append(storage)
        return allocate(choices, storage)

    monkeypatch.setattr(plan, "allocate", spread)
    yield units, budget


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_each_unit_costs_at_every_width_what_transformers_finds_when_it_alone_is_rounded(
    tiny, store, told, monkeypatch, kind
):
    """With grids that span the range of each group, that is round to nearest."""
    monkeypatch.setattr(grids, "SHRINK", (1.0,))
    folder = tiny(kind, **LAYERS)
    with operate(folder, store, MIXED) as made:
        figures = made.manifest.steps[0].figures
    units, _ = told
    model = load(folder, torch.float32)
    tokens_NL = text().tokens_NL[:2, :256]
    ours, theirs = [], []
    with torch.no_grad():
        before = model(tokens_NL).logits.double().log_softmax(-1)
        for layer in range(2):
            for first, names in UNITS.items():
                plain = units[f"model.layers.{layer}.{first}.weight"]
                assert [one.bits for one in plain] == [3, 4, 5, 6, 8]
                ours += [one.nats for one in plain]
                for choice in plain:
                    weights = [model.get_parameter(f"model.layers.{layer}.{name}.weight") for name in names]
                    old = [weight.clone() for weight in weights]
                    for weight in weights:
                        grid = fit(weight, bits=choice.bits, group_size=32, symmetric=False, dtype=torch.bfloat16)
                        weight.copy_(grid.nearest(weight))
                    after = model(tokens_NL).logits.double().log_softmax(-1)
                    theirs.append(float((before.exp() * (before - after)).sum(-1).mean()))
                    for weight, was in zip(weights, old, strict=True):
                        weight.copy_(was)
    assert len(units) == 8
    assert ours == pytest.approx(theirs, rel=2e-2, abs=3e-7)
    assert 0 < figures["predicted_nats"] < sum(choices[0].nats for choices in units.values())


@pytest.mark.parametrize("symmetric", [False, True])
def test_storage_is_that_of_codes_scales_and_zero_points(tiny, store, told, symmetric):
    with operate(tiny("llama", **LAYERS), store, MIXED | {"symmetric": symmetric}):
        units, (budget,) = told
    # rows and columns by hand: 64 wide, 128 within, heads of 32, one of keys and values
    shapes = {
        "q_proj": [(64, 64), (32, 64), (32, 64)],
        "o_proj": [(64, 64)],
        "gate_proj": [(128, 64), (128, 64)],
        "down_proj": [(64, 128)],
    }
    for unit, choices in units.items():
        for one in choices:
            expected = 0
            for rows, columns in shapes[unit.split(".")[-2]]:
                groups = rows * columns // 32
                expected += rows * columns * one.bits + groups * (16 + (0 if symmetric else one.bits))
            assert one.storage == expected
    weights = sum(rows * columns for layers in shapes.values() for rows, columns in layers)
    assert budget == pytest.approx(2 * weights * (4.5 + (16 + (0 if symmetric else 4.5)) / 32))


def test_where_the_least_width_is_the_mean_nothing_is_measured_and_it_is_told(tiny, store, monkeypatch):
    def measured(*_):
        raise AssertionError("there is nothing to choose")

    monkeypatch.setattr(Measured, "layer", measured)
    found = []
    for mixed in (True, False):
        with operate(tiny("llama", **LAYERS), store, MIXED | {"bits": 3, "mixed": mixed}) as made:
            (record,) = made.manifest.steps
            found.append(load_file(made.path / "model.safetensors"))
        told = [warning for warning in record.warnings if warning.code == "least_bits"]
        assert len(told) == mixed
        assert "predicted_nats" not in record.figures
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())
