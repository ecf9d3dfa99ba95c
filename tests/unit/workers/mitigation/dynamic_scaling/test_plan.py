"""Bits follow what layers were measured to cost, and are counted whole."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.quantizing import operate
from workers.mitigation.dynamic_scaling import plan
from workers.mitigation.dynamic_scaling.budget import Choice, allocate
from workers.mitigation.dynamic_scaling.sensitivity import Measured
from workers.surgery.store import CheckpointStore

Tiny = Callable[..., Path]
MIXED: dict[str, Any] = {"type": "quantize.dynamic", "bits": 4.5, "group_size": 32, "mixed": True}
LAYERS = {"num_hidden_layers": 2}


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "store", 10**9)


@pytest.mark.parametrize("dear", [0, 1])
def test_the_layer_that_was_measured_to_cost_more_has_more_bits(
    tiny: Tiny, store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, dear: int
) -> None:
    """Whatever is predicted: the same model, measured one way and the other."""
    monkeypatch.setattr(Measured, "layer", lambda _, index, *__: 1.0 if index == dear else 1e-4)
    with operate(tiny("llama", **LAYERS), store, MIXED) as made:
        bits = [
            sum(of.bits_per_weight for of in made.manifest.tensors if f".{layer}." in of.name and "_proj" in of.name)
            for layer in (dear, 1 - dear)
        ]
    assert bits[0] > bits[1] + 7, "of seven modules, more than a bit each"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[list[float], dict[str, Sequence[Choice]], list[float]]]:
    """(what each layer was measured to cost, what the budget is spread over, the budget)."""
    measured: list[float] = []
    units: dict[str, Sequence[Choice]] = {}
    budget: list[float] = []
    layer = Measured.layer

    def measure(self: Measured, *arguments: Any) -> float:
        measured.append(layer(self, *arguments))
        return measured[-1]

    def spread(choices: Mapping[str, Sequence[Choice]], storage: float) -> dict[str, int]:
        units.update(choices)
        budget.append(storage)
        return allocate(choices, storage)

    monkeypatch.setattr(Measured, "layer", measure)
    monkeypatch.setattr(plan, "allocate", spread)
    yield measured, units, budget


def test_what_a_layers_modules_cost_at_four_bits_adds_up_to_what_the_layer_was_measured_to(
    tiny: Tiny, store: CheckpointStore, told: tuple[list[float], dict[str, Sequence[Choice]], list[float]]
) -> None:
    with operate(tiny("llama", **LAYERS), store, MIXED) as made:
        figures = made.manifest.steps[0].figures
    measured, units, _ = told
    assert len(measured) == 2
    for layer, nats in enumerate(measured):
        costs = [
            one.nats for unit, choices in units.items() for one in choices if one.bits == 4 and f".{layer}." in unit
        ]
        assert len(costs) == 4  # q, k, v; o; gate, up; down
        assert sum(costs) == pytest.approx(nats, rel=1e-6)
    assert 0 < figures["predicted_nats"] < sum(choices[0].nats for choices in units.values())


@pytest.mark.parametrize("symmetric", [False, True])
def test_storage_is_that_of_codes_scales_and_zero_points(
    tiny: Tiny,
    store: CheckpointStore,
    told: tuple[list[float], dict[str, Sequence[Choice]], list[float]],
    symmetric: bool,
) -> None:
    with operate(tiny("llama", **LAYERS), store, MIXED | {"symmetric": symmetric}):
        _, units, (budget,) = told
    # rows and columns by hand: 64 wide, 128 within, heads of 32, one of keys and values
    weights = {"q_proj": 128 * 64, "o_proj": 64 * 64, "gate_proj": 256 * 64, "down_proj": 64 * 128}
    for unit, choices in units.items():
        count = weights[unit.split(".")[-2]]
        for one in choices:
            assert one.storage == count * (one.bits + (16 + (0 if symmetric else one.bits)) / 32)
    assert budget == pytest.approx(2 * sum(weights.values()) * (4.5 + (16 + (0 if symmetric else 4.5)) / 32))
