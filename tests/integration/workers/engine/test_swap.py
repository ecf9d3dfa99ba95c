from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.contracts.errors import ErrorCode
from app.models.checkpoint import inspect
from tests.integration.workers.engine.conftest import same
from tests.support.packed import make_packed
from tests.support.processor import needs_avx512
from tests.support.refusals import refused
from tests.support.tiny import make_checkpoint
from workers.engine.resident import ResidentEngine
from workers.engine.shape import packing_signature
from workers.engine.swap import PROVEN, Trust

Tiny = Callable[..., Path]
Packed = Callable[..., Path]
Resident = Callable[[Path, Trust], ResidentEngine]

# Every case below proves an entry of PROVEN, and PROVEN has no other.
CASES = [
    ("llama", None),
    ("llama-untied", None),
    ("qwen2", None),
    ("gemma2", None),
    ("granite", None),
    ("mixtral", None),
    ("llama", "W8A8"),
    ("llama", "W4A16"),
]
MARKED = [pytest.param(*case, marks=[needs_avx512] if case[1] == "W4A16" else []) for case in CASES]


def checkpoints(tiny: Tiny, packed: Packed, kind: str, scheme: str | None) -> tuple[Path, Path]:
    if scheme is None:
        return tiny(kind), tiny(kind, seed=1)
    return packed(kind, scheme), packed(kind, scheme, 1)


@pytest.mark.parametrize(("kind", "scheme"), MARKED)
def test_swapped_weights_score_bit_for_bit_as_a_fresh_engine(
    tiny: Tiny,
    packed: Packed,
    resident: Resident,
    windows: list[list[int]],
    kind: str,
    scheme: str | None,
) -> None:
    first, second = checkpoints(tiny, packed, kind, scheme)
    assert Trust("cpu").proven(inspect(first))
    engine = resident(first, Trust("cpu"))
    fresh_first = engine.hidden_states(windows)
    engine.load(inspect(second))
    swapped = engine.hidden_states(windows)
    engine.load(inspect(first))
    back = engine.hidden_states(windows)
    assert (engine.starts, engine.swaps) == (1, 2)
    engine.close()
    fresh_second = resident(second, Trust("cpu")).hidden_states(windows)
    assert not same(fresh_first, fresh_second)
    assert same(swapped, fresh_second)
    assert same(back, fresh_first)
    assert all(bool(hidden_TD.isfinite().all()) for hidden_TD in swapped)


def test_nothing_is_called_proven_that_is_not_proven_above(tiny: Tiny, packed: Packed) -> None:
    infos = [inspect(checkpoints(tiny, packed, kind, scheme)[0]) for kind, scheme in CASES]
    assert {("cpu", info.architecture, packing_signature(info)) for info in infos} == PROVEN


@pytest.mark.parametrize("scheme", [None, "W8A8", pytest.param("W4A16", marks=needs_avx512)])
def test_the_demo_model_swaps_exactly_too(
    smollm2: Path, resident: Resident, tmp_path: Path, scheme: str | None
) -> None:
    """Kernels are chosen by size: what holds for 64 dimensions is proven for 576, and 49,152 tokens, once more."""
    other = tmp_path / "other"
    other.mkdir()
    for file in smollm2.iterdir():
        if file.suffix != ".safetensors":
            (other / file.name).write_bytes(file.read_bytes())
    tensors = load_file(smollm2 / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith("proj.weight"):
            tensors[name] = (tensor.float() * 8).round().div(8).to(tensor.dtype)
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    first = smollm2
    if scheme is not None:
        first = make_packed(first, tmp_path / "first-packed", scheme)
        other = make_packed(other, tmp_path / "other-packed", scheme)
    text = [list(range(0, 49152, 400)), [5, 6, 7]]
    engine = resident(first, Trust("cpu"))
    engine.load(inspect(other))
    swapped = engine.hidden_states(text)
    assert engine.swaps == 1
    engine.close()
    assert same(swapped, resident(other, Trust("cpu")).hidden_states(text))


def test_an_unproven_packing_is_compared_once_and_then_trusted(
    packed: Packed, resident: Resident, windows: list[list[int]]
) -> None:
    trust = Trust("cpu")
    first, second = packed("llama", "FP8"), packed("llama", "FP8", 1)
    engine = resident(first, trust)
    before = engine.hidden_states(windows)
    engine.load(inspect(second))
    assert (engine.starts, engine.swaps) == (2, 0)
    assert trust.proven(inspect(first))
    engine.load(inspect(first))
    assert (engine.starts, engine.swaps) == (2, 1)
    assert same(engine.hidden_states(windows), before)


@needs_avx512
def test_a_packing_that_cannot_be_swapped_gets_fresh_engines(
    packed: Packed, resident: Resident, windows: list[list[int]]
) -> None:
    """vLLM 0.32 fails in the middle of reloading asymmetric 4-bit weights."""
    trust = Trust("cpu")
    first, second = packed("llama", "W4A16-ASYM"), packed("llama", "W4A16-ASYM", 1)
    engine = resident(first, trust)
    engine.load(inspect(second))
    assert (engine.starts, engine.swaps) == (2, 0)
    assert trust.refused(inspect(second))
    scored = engine.hidden_states(windows)
    engine.load(inspect(first))
    assert (engine.starts, engine.swaps) == (3, 0)
    engine.close()
    assert same(scored, resident(second, trust).hidden_states(windows))


def test_a_swap_that_scores_otherwise_is_found_out(
    tiny: Tiny, resident: Resident, windows: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without packing the experts again, vLLM 0.32 swaps a mixture of experts wrongly and says nothing."""
    monkeypatch.setattr("workers.engine.mending.forget_packed_experts", lambda *_: None)
    trust = Trust("cpu", frozenset())
    engine = resident(tiny("mixtral"), trust)
    engine.load(inspect(tiny("mixtral", seed=1)))
    assert trust.refused(inspect(tiny("mixtral")))
    scored = engine.hidden_states(windows)
    engine.close()
    assert same(scored, resident(tiny("mixtral", seed=1), trust).hidden_states(windows))


def test_the_same_checkpoint_is_not_loaded_twice_but_a_rewritten_one_is(
    resident: Resident, windows: list[list[int]], tmp_path: Path
) -> None:
    folder = make_checkpoint(tmp_path / "model")
    engine = resident(folder, Trust("cpu"))
    before = engine.hidden_states(windows)
    engine.load(inspect(folder))
    assert (engine.starts, engine.swaps) == (1, 0)
    make_checkpoint(folder, seed=3)
    engine.load(inspect(folder))
    assert (engine.starts, engine.swaps) == (1, 1)
    assert not same(engine.hidden_states(windows), before)


def test_weights_that_are_not_numbers_never_reach_the_engine(
    tiny: Tiny, resident: Resident, windows: list[list[int]], tmp_path: Path
) -> None:
    folder = make_checkpoint(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.q_proj.weight"][0, 0] = torch.nan
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    engine = resident(tiny("llama"), Trust("cpu"))
    before = engine.hidden_states(windows)
    with refused(ErrorCode.CHECKPOINT_NOT_FINITE, match="q_proj"):
        engine.load(inspect(folder))
    assert same(engine.hidden_states(windows), before)
    assert (engine.starts, engine.swaps) == (1, 0)


def test_a_model_that_overflows_is_scored_as_it_is(tiny: Tiny, resident: Resident, tmp_path: Path) -> None:
    """Its weights are numbers, its states are not: that is a finding about the model, not a broken engine."""
    folder = make_checkpoint(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"].fill_(3e38)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    engine = resident(tiny("llama"), Trust("cpu"))
    engine.load(inspect(folder))
    assert engine.starts == 2  # a swap is not believed when what comes out is not finite
    (hidden_TD,) = engine.hidden_states([[1, 2, 3]])
    assert not bool(hidden_TD.isfinite().all())
    engine.load(inspect(tiny("llama")))
    assert engine.swaps == 1
    assert bool(engine.hidden_states([[1, 2, 3]])[0].isfinite().all())


def test_another_set_of_tensors_needs_another_engine(tiny: Tiny, resident: Resident) -> None:
    info = inspect(tiny("llama", seed=1))
    engine = resident(tiny("llama"), Trust("cpu"))
    one = next(iter(info.tensors))
    engine.load(replace(info, tensors=info.tensors | {one: replace(info.tensors[one], dtype="F32")}))
    assert (engine.starts, engine.swaps) == (2, 0)
