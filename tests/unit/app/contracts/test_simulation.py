"""The section of config.json that tells an engine what to simulate."""

import json

import pytest
from pydantic import ValidationError

from app.contracts.simulation import SECTION, Simulation, simulation_of

_Q, _K = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"


def test_a_configuration_without_the_section_asks_for_nothing():
    assert simulation_of({"model_type": "llama"}) is None


def test_a_section_survives_json():
    told = {
        "activations": [
            {"bits": 8, "dynamic": False, "symmetric": False, "modules": [_Q], "scales": {_Q: [0.5, 3]}},
            {"bits": 4, "modules": [_K]},
        ],
        "kv_cache": [{"k_bits": 4, "v_bits": None, "group_size": 16, "layers": [0, 2]}],
    }
    section = Simulation.model_validate(told)
    again = simulation_of({SECTION: json.loads(section.model_dump_json())})
    assert again == section
    assert section.activations[0].scales == {_Q: (0.5, 3)}
    assert (section.fakes, section.kv_dtype) == (True, None)


def test_one_entry_needs_no_list_and_null_is_none():
    section = Simulation.model_validate({"activations": {"bits": 8, "modules": [_Q]}, "kv_cache": None})
    assert len(section.activations) == 1
    assert section.simulated_kv == ()
    section = Simulation.model_validate({"kv_cache": {"v_bits": 2, "layers": [0]}})
    assert section.simulated_kv[0].v_bits == 2


def test_floats_are_told_and_whole_numbers_are_not():
    """Checkpoints that simulate even grids keep every byte of their configuration, and so their fingerprint."""
    told = {"kind": "float", "bits": 8, "dynamic": False, "modules": [_K], "scales": {_K: [0.5, 0]}}
    section = Simulation.model_validate({"activations": [{"bits": 4, "modules": [_Q]}, told]})
    even, floats = section.model_dump(mode="json")["activations"]
    assert even == {"bits": 4, "dynamic": True, "symmetric": True, "modules": [_Q], "scales": None}
    assert floats == {"symmetric": True} | told
    assert Simulation.model_validate(section.model_dump()) == section


def test_a_stored_dtype_simulates_nothing():
    section = Simulation.model_validate({"activations": None, "kv_cache": {"dtype": "fp8_e5m2"}})
    assert (section.fakes, section.kv_dtype, section.simulated_kv) == (False, "fp8_e5m2", ())


@pytest.mark.parametrize(
    "told",
    [
        {"activations": {"bits": 8, "modules": []}},
        {"activations": {"bits": 8, "modules": [_Q], "dynamic": False}},
        {"activations": {"bits": 8, "modules": [_Q], "dynamic": False, "scales": {_K: [1.0, 0]}}},
        {"activations": [{"bits": 8, "modules": [_Q]}, {"bits": 4, "modules": [_Q]}]},
        {"activations": {"kind": "float", "bits": 4, "modules": [_Q]}},
        {"activations": {"kind": "float", "bits": 8, "modules": [_Q], "dynamic": False, "scales": {_Q: [1.0, 3]}}},
        {"kv_cache": [{"k_bits": 4, "layers": [0, 1]}, {"k_bits": 8, "v_bits": 8, "layers": [1]}]},
        {"misspelt": {}},
    ],
)
def test_what_has_no_meaning_is_refused(told):
    with pytest.raises(ValidationError):
        Simulation.model_validate(told)


def test_keys_and_values_of_a_layer_may_stand_in_two_entries():
    told = [{"k_bits": 4, "layers": [0, 1]}, {"v_bits": 8, "layers": [1]}]
    assert len(Simulation.model_validate({"kv_cache": told}).simulated_kv) == 2
