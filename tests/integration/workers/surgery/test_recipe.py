"""Recipes on the demo model: real sizes, memory, a real limit of the system."""

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from safetensors import safe_open

from app.models.checkpoint import inspect
from app.recipes.recipe import Recipe
from tests.support.memory import anonymous_bytes
from tests.support.packed import make_packed
from workers.surgery.dequantize import dequantize
from workers.surgery.modified import Modified
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
RTN = {"type": "quantize.rtn", "bits": 4}
LINEARS = 30 * (2 * 576 * 576 + 2 * 192 * 576 + 3 * 576 * 1536)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CheckpointStore:
    return CheckpointStore(tmp_path_factory.mktemp("store"), 10**10)


def operate(smollm2: Path, store: CheckpointStore, *steps: dict[str, Any], **options: Any) -> Modified:
    return apply(inspect(smollm2), RECIPE.validate_python(steps), device="cpu", store=store, **options)


def test_four_bits_of_the_demo_model(smollm2: Path, store: CheckpointStore) -> None:
    with operate(smollm2, store, RTN) as modified:
        manifest = modified.manifest
        assert len(manifest.tensors) == 210
        assert sum(change.elements for change in manifest.tensors) == LINEARS
        assert manifest.bits_per_weight == 4 + 20 / 64
        assert 0.08 < (manifest.reconstruction_error or 0) < 0.11
        name = "model.layers.7.self_attn.q_proj.weight"
        with (
            safe_open(smollm2 / "model.safetensors", "pt") as before,
            safe_open(modified.path / "model.safetensors", "pt") as after,
        ):
            groups = before.get_tensor(name).double().reshape(-1, 64)
            low, high = groups.amin(1, keepdim=True).clamp(max=0), groups.amax(1, keepdim=True).clamp(min=0)
            scale = (high - low) / 15
            zero = (-low / scale).round()
            expected = (((groups / scale).round() + zero).clamp(0, 15) - zero) * scale
            found = after.get_tensor(name).double().reshape(-1, 64)
            # float32 and float64 may differ on which of two equally near codes a bf16 weight goes to
            other = (found - expected).abs() > 2**-8 * expected.abs()
            assert int(other.sum()) < 1e-3 * other.numel()
            assert bool(((found - groups).abs() <= scale * 0.5001 + 2**-8 * found.abs()).all())
            for untouched in ("model.embed_tokens.weight", "model.norm.weight"):
                assert torch.equal(before.get_tensor(untouched), after.get_tensor(untouched))


@pytest.mark.parametrize("scope", ["row", "layer", "global"])
def test_a_share_of_the_demo_model_is_met(smollm2: Path, store: CheckpointStore, scope: str) -> None:
    prune = {"type": "prune.magnitude", "sparsity": 0.37, "scope": scope}
    with operate(smollm2, store, prune) as modified:
        changes = modified.manifest.tensors
    total = sum(change.zeros for change in changes)
    if scope == "global":
        assert total == round(0.37 * LINEARS)
    else:
        rows = {change.name: change.shape[0] if scope == "row" else 1 for change in changes}
        for change in changes:
            count = rows[change.name]
            assert change.zeros == count * round(0.37 * change.elements / count)


def test_memory_holds_a_few_tensors(smollm2: Path, store: CheckpointStore) -> None:
    before = anonymous_bytes()
    seen: list[int] = []
    steps = ({"type": "prune.magnitude", "sparsity": 0.6, "scope": "global"}, RTN)
    operate(smollm2, store, *steps, progress=lambda *_: seen.append(anonymous_bytes())).release()
    assert len(seen) > 600
    # the largest matrix addressed has 3.5 MB in float32; the model has 269 MB
    assert max(seen) - before < 80e6


def test_the_demo_model_packed_and_plain_again(smollm2: Path, store: CheckpointStore, tmp_path: Path) -> None:
    packed = inspect(make_packed(smollm2, tmp_path / "w8a8", "W8A8"))
    assert packed.parameters == inspect(smollm2).parameters
    with dequantize(packed, device="cpu", store=store) as entry:
        plain = inspect(entry.path)
        assert plain.scheme == "bf16"
        with (
            safe_open(smollm2 / "model.safetensors", "pt") as before,
            safe_open(entry.path / "model.safetensors", "pt") as after,
        ):
            for name in ("model.layers.0.mlp.down_proj.weight", "model.layers.29.self_attn.v_proj.weight"):
                old, new = before.get_tensor(name).float(), after.get_tensor(name).float()
                assert 0.001 < float((old - new).norm() / old.norm()) < 0.02


FULL = """
import resource, signal, sys
from pathlib import Path
from pydantic import TypeAdapter
from app.contracts.errors import HemostatError
from app.recipes.recipe import Recipe
from app.models.checkpoint import inspect
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
source, store = inspect(Path(sys.argv[1])), CheckpointStore(Path(sys.argv[2]), 10**10)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000_000, 100_000_000))
recipe = TypeAdapter(Recipe).validate_python([{"type": "quantize.rtn", "bits": 8}])
try:
    apply(source, recipe, device="cpu", store=store)
except HemostatError as error:
    print(error.code.value)
"""


def test_a_disk_that_takes_no_more_is_told_and_leaves_nothing(smollm2: Path, tmp_path: Path) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(smollm2), str(tmp_path / "store")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stdout.strip()) == (0, "disk_full"), done.stderr
    assert [path.name for path in (tmp_path / "store").rglob("*")] == [".locks"]
