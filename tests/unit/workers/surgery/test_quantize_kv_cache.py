"""`quantize.kv_cache`: a section in config.json, and what a number of the cache takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from app.models.checkpoint import inspect
from app.models.simulation import section_in
from app.models.steps import runtime
from app.recipes.recipe import Recipe
from tests.support.packed import make_packed
from workers.surgery.modified import Modified
from workers.surgery.quantize_kv_cache import stored_bits
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

Tiny = Callable[..., Path]
RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
KV: dict[str, Any] = {"type": "quantize.kv_cache"}


def operate(folder: Path, tmp_path: Path, *steps: dict[str, Any]) -> Modified:
    return apply(inspect(folder), RECIPE.validate_python(steps), store=CheckpointStore(tmp_path / "store", 10**9))


def test_a_number_takes_its_code_and_a_share_of_its_grid() -> None:
    assert stored_bits(4, 64, symmetric=False) == 4 + 20 / 64
    assert stored_bits(8, 32, symmetric=True) == 8.5
    assert stored_bits(None, 32, symmetric=True) == 16


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "mixtral"])
def test_keys_and_values_are_named_with_their_layers(tiny: Tiny, tmp_path: Path, kind: str) -> None:
    with operate(tiny(kind), tmp_path, KV | {"k_bits": 4, "group_size": 16, "layers": [2, 0, 2]}) as modified:
        section = section_in(inspect(modified.path).config)
        assert section is not None
        (entry,) = section.simulated_kv
        assert (entry.k_bits, entry.v_bits, entry.group_size, entry.layers) == (4, None, 16, (0, 2))
        figures = modified.manifest.steps[0].figures
        assert figures["k_bits"] == pytest.approx((2 * (4 + 20 / 16) + 16) / 3, abs=1e-4)
        assert figures["v_bits"] == 16
        assert (modified.manifest.tensors, modified.manifest.scheme) == ((), "simulated")


def test_a_dtype_is_the_engines(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "has_avx512", lambda: True)
    with operate(tiny("llama"), tmp_path, KV | {"dtype": "fp8_e5m2"}) as modified:
        section = section_in(inspect(modified.path).config)
        assert section is not None
        assert (section.kv_dtype, section.fakes) == ("fp8_e5m2", False)
        assert modified.manifest.steps[0].figures == {"k_bits": 8.0, "v_bits": 8.0}


def test_a_packed_checkpoint_takes_it(tiny: Tiny, tmp_path: Path) -> None:
    packed = make_packed(tiny("llama"), tmp_path / "packed", "W4A16")
    with operate(packed, tmp_path, KV | {"k_bits": 8, "v_bits": 8}) as modified:
        before, after = inspect(packed), inspect(modified.path)
        assert after.scheme == before.scheme == modified.manifest.scheme
        assert {name: (t.dtype, t.shape) for name, t in after.tensors.items()} == {
            name: (t.dtype, t.shape) for name, t in before.tensors.items()
        }
        section = section_in(after.config)
        assert section is not None
        assert section.simulated_kv[0].layers == (0, 1, 2)
