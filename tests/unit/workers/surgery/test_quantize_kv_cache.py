"""`quantize.kv_cache`: a section in config.json, and what a number of the cache takes."""

import pytest

from app.models.checkpoint import inspect
from app.models.simulation import section_in
from app.models.steps import runtime
from tests.support.pruning import operate
from workers.surgery.quantize_kv_cache import stored_bits

KV = {"type": "quantize.kv_cache"}


def test_a_number_takes_its_code_and_a_share_of_its_grid():
    assert stored_bits(4, 64, symmetric=False) == 4 + 20 / 64
    assert stored_bits(8, 32, symmetric=True) == 8.5
    assert stored_bits(None, 32, symmetric=True) == 16


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "mixtral"])
def test_keys_and_values_are_named_with_their_layers(tiny, store, kind):
    with operate(tiny(kind), store, KV | {"k_bits": 4, "group_size": 16, "layers": [2, 0, 2]}) as modified:
        section = section_in(inspect(modified.path).config)
        (entry,) = section.simulated_kv
        assert (entry.k_bits, entry.v_bits, entry.group_size, entry.layers) == (4, None, 16, (0, 2))
        figures = modified.manifest.steps[0].figures
        assert figures["k_bits"] == pytest.approx((2 * (4 + 20 / 16) + 16) / 3, abs=1e-4)
        assert figures["v_bits"] == 16
        assert (modified.manifest.tensors, modified.manifest.scheme) == ((), "simulated")


def test_a_dtype_is_the_engines(tiny, store, monkeypatch):
    monkeypatch.setattr(runtime, "has_avx512", lambda: True)
    with operate(tiny("llama"), store, KV | {"dtype": "fp8_e5m2"}) as modified:
        section = section_in(inspect(modified.path).config)
        assert (section.kv_dtype, section.fakes) == ("fp8_e5m2", False)
        assert modified.manifest.steps[0].figures == {"k_bits": 8.0, "v_bits": 8.0}


def test_a_packed_checkpoint_takes_it(tiny, store):
    packing = {"type": "quantize.rtn", "bits": 4, "group_size": 32, "form": "packed"}
    with (
        operate(tiny("llama"), store, packing) as packed,
        operate(packed.path, store, KV | {"k_bits": 8, "v_bits": 8}) as modified,
    ):
        before, after = inspect(packed.path), inspect(modified.path)
        assert after.scheme == before.scheme == modified.manifest.scheme
        assert {name: (t.dtype, t.shape) for name, t in after.tensors.items()} == {
            name: (t.dtype, t.shape) for name, t in before.tensors.items()
        }
        section = section_in(after.config)
        assert section.simulated_kv[0].layers == (0, 1, 2)
