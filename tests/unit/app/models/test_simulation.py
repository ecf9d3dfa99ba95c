"""Steps that act at run time put their sections together."""

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.simulation import SECTION, SimulatedActivations, SimulatedKvCache
from app.models.simulation import section_in, with_activations, with_kv_cache


def test_a_later_step_takes_over_the_modules_that_it_names():
    first = SimulatedActivations(bits=8, dynamic=False, modules=("a", "b"), scales={"a": (1.0, 0), "b": (2.0, 0)})
    config = with_activations({"model_type": "llama"}, first)
    config = with_activations(config, SimulatedActivations(bits=4, modules=("b", "c")))
    section = section_in(config)
    assert config["model_type"] == "llama"
    assert section is not None
    assert [(one.bits, one.modules, one.scales) for one in section.activations] == [
        (8, ("a",), {"a": (1.0, 0)}),
        (4, ("b", "c"), None),
    ]
    config = with_activations(config, SimulatedActivations(bits=8, modules=("a", "b", "c")))
    section = section_in(config)
    assert section is not None
    assert [(one.bits, one.modules) for one in section.activations] == [(8, ("a", "b", "c"))]


def test_what_is_left_to_an_earlier_step_stays_of_its_kind():
    scales = {"a": (0.5, 0), "b": (2.0, 0)}
    floats = SimulatedActivations(kind="float", bits=8, dynamic=False, modules=("a", "b"), scales=scales)
    section = section_in(with_activations(with_activations({}, floats), SimulatedActivations(bits=8, modules=("a",))))
    assert section is not None
    assert [(one.kind, one.modules, one.scales) for one in section.activations] == [
        ("float", ("b",), {"b": (2.0, 0)}),
        ("int", ("a",), None),
    ]


def test_keys_and_values_are_taken_over_layer_by_layer():
    config = with_kv_cache({}, SimulatedKvCache(k_bits=8, v_bits=8, layers=(0, 1, 2)))
    config = with_kv_cache(config, SimulatedKvCache(k_bits=4, layers=(1,)))
    section = section_in(config)
    assert section is not None
    assert {(one.k_bits, one.v_bits, one.layers) for one in section.simulated_kv} == {
        (8, 8, (0, 2)),
        (None, 8, (1,)),
        (4, None, (1,)),
    }


def test_a_damaged_section_is_the_checkpoints_fault():
    with pytest.raises(HemostatError) as caught:
        section_in({SECTION: {"activations": [{"bits": 99}]}})
    assert caught.value.code is ErrorCode.CHECKPOINT_CORRUPT
