"""What an engine simulates is what transformers computes in float32 with the same numbers put on grids by hand."""

import importlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.simulation import SECTION, SimulatedActivations, Simulation
from app.models.checkpoint import inspect
from app.models.processor import has_amx
from app.models.simulation import section_in
from app.recipes.base import Calibrated
from app.recipes.recipe import Recipe
from tests.integration.workers.engine.conftest import same
from tests.support import e4m3
from tests.support.copies import copier, edit_json
from tests.support.processor import needs_avx512, needs_vnni
from tests.support.refusals import refused
from tests.support.tiny import VOCABULARY
from workers.engine.fakes import fake_activations, fake_kv_cache
from workers.engine.generation import GenerationEngine
from workers.engine.launch import load_vllm
from workers.engine.pool import EnginePool
from workers.engine.resident import ResidentEngine
from workers.engine.swap import Trust
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

Tiny = Callable[..., Path]
Packed = Callable[..., Path]
Resident = Callable[[Path, Trust], ResidentEngine]
Make = Callable[..., Path]
RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
A8: dict[str, Any] = {"type": "quantize.activations", "bits": 8}
FP8: dict[str, Any] = {"type": "quantize.fp8", "activations": "dynamic"}
KV: dict[str, Any] = {"type": "quantize.kv_cache"}


def calibration(step: Calibrated) -> CalibrationText:
    tokens_NL = torch.randint(0, VOCABULARY, (4, 64), generator=torch.Generator().manual_seed(step.seed))
    return CalibrationText(tokens_NL, f"text {step.seed}", 4, 4)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """`make(checkpoint, *steps)`: the modified checkpoint."""
    store = CheckpointStore(tmp_path / "store", 10**9)

    def operate(source: Path, *steps: dict[str, Any]) -> Path:
        return apply(
            inspect(source), RECIPE.validate_python(steps), device="cpu", store=store, calibration=calibration
        ).path

    return operate


@pytest.fixture
def exact(pool: EnginePool) -> Iterator[Callable[[Path], ResidentEngine]]:
    """`exact(checkpoint)`: an engine in float32, so that nothing but the grids rounds."""
    made: list[ResidentEngine] = []

    def start(checkpoint: Path) -> ResidentEngine:
        info = inspect(checkpoint)
        made.append(ResidentEngine(pool._options(info, 128, "float32"), Trust("cpu")))
        made[-1].load(info)
        return made[-1]

    yield start
    for engine in made:
        engine.close()


@pytest.fixture(scope="module")
def short() -> list[list[int]]:
    """Thirty windows of 3 to 17 tokens."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(2, VOCABULARY, (3 + index % 15,), generator=generator).tolist() for index in range(30)]


# ---- the oracle


def on_grid(x: torch.Tensor, bits: int, *, symmetric: bool, fixed: tuple[float, int] | None = None) -> torch.Tensor:
    """Quantized and dequantized in float64; a grid for each row of the last dimension, or the fixed one."""
    x = x.double()
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    most = 2 ** (bits - 1) - 1 if symmetric else 2**bits - 1
    reach = torch.maximum(high, -low) if symmetric else high - low
    scale = torch.where(reach == 0, 1.0, reach / most) if fixed is None else torch.tensor(fixed[0])
    if symmetric:
        return torch.clamp(torch.round(x / scale), -most, most) * scale
    zero = torch.round(-low / scale) if fixed is None else torch.tensor(fixed[1])
    return (torch.clamp(torch.round(x / scale) + zero, 0, most) - zero) * scale


def cut(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The nearest number of `dtype` towards zero: so vLLM 0.32 stores 8-bit floats on a CPU."""
    near = x.to(dtype)
    beyond = near.float().abs() > x.float().abs()
    return (near.view(torch.uint8) - beyond.to(torch.uint8)).view(dtype).float()


def _forward_hook(entry: SimulatedActivations, name: str) -> Callable[..., Any]:
    fixed = None if entry.scales is None else entry.scales[name]
    if entry.kind == "float":
        scale = None if fixed is None else fixed[0]
        return lambda _, args: (torch.from_numpy(e4m3.scaled(args[0].double().numpy(), scale)).float(),)
    return lambda _, args: (on_grid(args[0], entry.bits, symmetric=entry.symmetric, fixed=fixed).float(),)


def oracle(
    checkpoint: Path,
    windows: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
    store: Callable[[int, str, torch.Tensor], torch.Tensor] = lambda _, __, x: x,
) -> list[torch.Tensor]:
    """Final hidden states in float32; `store(layer, "k" or "v", x)` is what is kept of keys (rotated) and values."""
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")
    section = section_in(inspect(checkpoint).config)
    for entry in section.activations if section else ():
        for name in entry.modules:
            model.get_submodule(name).register_forward_pre_hook(_forward_hook(entry, name))
    code = importlib.import_module(type(model).__module__)
    plain = code.eager_attention_forward

    def attend(module: Any, query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> Any:
        key, value = store(module.layer_idx, "k", key), store(module.layer_idx, "v", value)
        return plain(module, query, key, value, *rest, **named)

    monkeypatch.setattr(code, "eager_attention_forward", attend)
    with torch.no_grad():
        states = [model.model(input_ids=torch.tensor([window])).last_hidden_state[0] for window in windows]
    monkeypatch.setattr(code, "eager_attention_forward", plain)
    return states


def distance(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """Relative, over all windows."""
    difference = sum(float((a.float() - b.float()).square().sum()) for a, b in zip(one, other, strict=True))
    return float((difference / sum(float(b.float().square().sum()) for b in other)) ** 0.5)


def exactly(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """The share of windows that agree to float32's rounding. A number between two codes may fall on the other one, and
    three random layers make a flip large: so windows are short, and many of them have none. What computes something
    else agrees in no window."""
    return sum(distance([a], [b]) < 1e-4 for a, b in zip(one, other, strict=True)) / len(one)


# ---- activations


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("llama", A8),
        ("llama", A8 | {"bits": 4, "symmetric": False, "layers": [1], "modules": ["mlp"]}),
        ("qwen2", A8 | {"dynamic": False, "symmetric": False}),  # biases
        ("gemma2", A8 | {"bits": 4}),
        ("gemma2", A8 | {"dynamic": False}),
        ("llama", FP8),
        ("qwen2", FP8 | {"activations": "static"}),
        ("gemma2", FP8 | {"layers": [0, 2], "modules": ["attention"]}),
    ],
)
def test_activations_are_those_of_transformers(
    tiny: Tiny,
    make: Make,
    exact: Callable[[Path], ResidentEngine],
    short: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    step: dict[str, Any],
) -> None:
    made = make(tiny(kind), step)
    # the same weights with inputs as they are
    untouched = make(tiny(kind), step | {"activations": "none"}) if step["type"] == "quantize.fp8" else tiny(kind)
    expected, plain = oracle(made, short, monkeypatch), oracle(untouched, short, monkeypatch)
    assert exactly(plain, expected) == 0
    assert exactly(exact(made).hidden_states(short), expected) > 0.25


def unpacked(packed: Path, folder: Path) -> Path:
    """Codes times scales, in float32: the very weights of the packed checkpoint, but in a plain one."""
    tensors = load_file(packed / "model.safetensors")
    scales = {name.removesuffix("_scale"): tensors.pop(name) for name in list(tensors) if name.endswith("_scale")}
    plain = {name: tensor.float() * scales.get(name, torch.tensor(1.0)).float() for name, tensor in tensors.items()}
    shutil.copytree(packed, folder)
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
    edit_json(folder / "config.json", quantization_config=None, dtype="float32")
    return folder


@pytest.mark.skipif(has_amx(), reason="the int8 kernel for AMX takes bf16 alone, and codes are compared in float32")
@needs_vnni
def test_integer_kernels_compute_what_is_simulated(
    packed: Packed, make: Make, exact: Callable[[Path], ResidentEngine], short: list[list[int]], tmp_path: Path
) -> None:
    """llm-compressor's W8A8, run by vLLM's int8 kernel, against its weights with simulated 8-bit activations."""
    shipped = exact(packed("llama", "W8A8")).hidden_states(short)
    weights = unpacked(packed("llama", "W8A8"), tmp_path / "plain")
    assert exactly(exact(weights).hidden_states(short), shipped) == 0
    assert exactly(exact(make(weights, A8)).hidden_states(short), shipped) > 0.25


def test_kernels_of_8_bit_floats_compute_what_is_simulated(
    tiny: Tiny, make: Make, exact: Callable[[Path], ResidentEngine], short: list[list[int]], tmp_path: Path
) -> None:
    """Packed, on vLLM's own kernel, against the simulated form of the same recipe. Weights are float32 on disk, so that
    both have the same ones."""
    source = tmp_path / "source"
    shutil.copytree(tiny("llama"), source)
    weights = {name: tensor.float() for name, tensor in load_file(source / "model.safetensors").items()}
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    edit_json(source / "config.json", dtype="float32")
    shipped = exact(make(source, FP8 | {"form": "packed"})).hidden_states(short)
    assert exactly(exact(make(source, FP8 | {"activations": "none"})).hidden_states(short), shipped) == 0
    assert exactly(exact(make(source, FP8)).hidden_states(short), shipped) > 0.25


# ---- keys and values


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("llama", KV | {"k_bits": 4, "v_bits": 3}),
        ("qwen2", KV | {"k_bits": 3, "group_size": 8, "symmetric": True, "layers": [0, 2]}),
        ("gemma2", KV | {"v_bits": 2, "group_size": 16}),
    ],
)
def test_keys_and_values_are_those_of_transformers(
    tiny: Tiny,
    make: Make,
    exact: Callable[[Path], ResidentEngine],
    short: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    step: dict[str, Any],
) -> None:
    def store(layer: int, side: str, x: torch.Tensor) -> torch.Tensor:
        bits = step.get(f"{side}_bits")
        if bits is None or layer not in step.get("layers", range(3)):
            return x
        grouped = x.reshape(*x.shape[:-1], -1, step.get("group_size") or x.shape[-1])
        return on_grid(grouped, bits, symmetric=step.get("symmetric", False)).reshape(x.shape).float()

    made = make(tiny(kind), step)
    expected, plain = oracle(made, short, monkeypatch, store), oracle(tiny(kind), short, monkeypatch)
    assert exactly(plain, expected) == 0
    assert exactly(exact(made).hidden_states(short), expected) > 0.25


@needs_avx512
@pytest.mark.parametrize(
    ("dtype", "stored"),
    [("fp8", torch.float8_e4m3fn), ("fp8_e4m3", torch.float8_e4m3fn), ("fp8_e5m2", torch.float8_e5m2)],
)
def test_a_dtype_is_what_the_engine_stores(
    tiny: Tiny,
    make: Make,
    exact: Callable[[Path], ResidentEngine],
    short: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    stored: torch.dtype,
) -> None:
    made = make(tiny("llama"), KV | {"dtype": dtype})
    expected = oracle(made, short, monkeypatch, lambda _, __, x: cut(x, stored))
    plain = oracle(tiny("llama"), short, monkeypatch)
    states = exact(made).hidden_states(short)
    assert exactly(plain, expected) == 0
    assert exactly(states, expected) > 0.25


# ---- the engines


def test_without_a_section_nothing_changes_and_with_one_weights_still_swap_exactly(
    tiny: Tiny, make: Make, resident: Resident, windows: list[list[int]]
) -> None:
    steps = (A8, KV | {"k_bits": 4})
    first, second = make(tiny("llama"), *steps), make(tiny("llama", seed=1), *steps)
    engine = resident(first, Trust("cpu"))
    before = engine.hidden_states(windows)
    engine.load(inspect(second))
    swapped = engine.hidden_states(windows)
    assert (engine.starts, engine.swaps) == (1, 1)
    assert same(swapped, resident(second, Trust("cpu")).hidden_states(windows))
    assert not same(swapped, before)


def test_checkpoints_that_simulate_have_an_engine_of_their_own(
    tiny: Tiny, make: Make, pool: EnginePool, windows: list[list[int]]
) -> None:
    made = inspect(make(tiny("llama"), A8))
    plain = pool.loaded(inspect(tiny("llama")), 128, "bfloat16")
    before = plain.hidden_states(windows)
    simulated = pool.loaded(made, 128, "bfloat16")
    assert simulated is not plain
    assert not same(simulated.hidden_states(windows), before)
    again = pool.loaded(inspect(tiny("llama")), 128, "bfloat16")
    assert same(again.hidden_states(windows), before)


def test_what_is_generated_reads_the_same_cache_as_what_is_scored(tiny: Tiny, make: Make, pool: EnginePool) -> None:
    """Log-probabilities of drawn tokens, from keys and values written one by one, are those of the whole text."""
    from vllm import SamplingParams

    made = make(tiny("llama-untied"), A8 | {"bits": 4}, KV | {"k_bits": 2, "v_bits": 2})
    prompt = list(range(20, 60))
    with GenerationEngine(made, pool=pool, length=128, streams=4) as engine:
        drawn = engine.run([prompt], [SamplingParams(temperature=0, max_tokens=24, logprobs=1, detokenize=False)])[0]
        tokens = list(drawn.outputs[0].token_ids)
        one = [drawn.outputs[0].logprobs[index][token].logprob for index, token in enumerate(tokens)]
        scored = engine.run(
            [prompt + tokens],
            [SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=1, detokenize=False)],
        )[0]
        places = enumerate(tokens, len(prompt))
        other = [scored.prompt_logprobs[place][token].logprob for place, token in places]
    assert max(abs(a - b) for a, b in zip(one, other, strict=True)) < 0.15
    with GenerationEngine(tiny("llama-untied"), pool=pool, length=128, streams=4) as engine:
        plain = engine.run(
            [prompt + tokens],
            [SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=1, detokenize=False)],
        )[0]
        places = enumerate(tokens, len(prompt))
        unquantized = [plain.prompt_logprobs[place][token].logprob for place, token in places]
    assert max(abs(a - b) for a, b in zip(one, unquantized, strict=True)) > 0.5


def test_what_cannot_be_simulated_is_refused_and_leaves_no_engine(
    tiny: Tiny, tmp_path: Path, resident: Resident, pool: EnginePool
) -> None:
    def section(*names: str) -> Path:
        folder = copier(tiny, tmp_path)("llama", name="-".join(names))
        told = {"activations": [{"bits": 8, "modules": [f"model.layers.{name}" for name in names]}]}
        edit_json(folder / "config.json", **{SECTION: told})
        return folder

    for names, words in {
        ("0.self_attn.q_proj", "0.self_attn.k_proj"): "as one",
        ("0.mlp.down_proj", "7.mlp.down_proj"): "does not have",
    }.items():
        with refused(ErrorCode.CHECKPOINT_UNSUPPORTED, match=words):
            resident(section(*names), Trust("cpu"))
    info = inspect(section("0.mlp.down_proj"))
    with pytest.raises(HemostatError, match="eager"):
        ResidentEngine(replace(pool._options(info, 128, "bfloat16"), compiled=True), Trust("cpu")).load(info)


def test_what_a_model_of_another_layout_lacks_is_refused() -> None:
    load_vllm()
    sections: dict[Any, dict[str, Any]] = {
        fake_activations: {"activations": {"bits": 8, "modules": ["model.layers.0.mlp.down_proj"]}},
        fake_kv_cache: {"kv_cache": {"k_bits": 4, "layers": [0]}},
    }
    for install, section in sections.items():
        with refused(ErrorCode.CHECKPOINT_UNSUPPORTED, match=r"layers\.0"):
            install(torch.nn.ModuleDict({"decoder": torch.nn.Identity()}), Simulation.model_validate(section))
