"""What is refused of steps from shapes and configuration alone: a row per refusal."""

from dataclasses import replace
from shutil import copytree

import pytest

from app.contracts.blocks import SECTION
from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import inspect
from app.models.steps import quantize, runtime
from app.models.steps.dynamic import widths
from app.models.steps.others import check_other
from tests.support.checked import checked, recipe, refusal, refused, wrongly_refused
from tests.support.copies import edit_json

NO, PACKING, UNKNOWN = ErrorCode.RECIPE_NOT_APPLICABLE, ErrorCode.PACKING_UNSUPPORTED, ErrorCode.UNKNOWN_MODULE
GROUPS, PATTERN = ErrorCode.GROUP_SIZE_MISMATCH, ErrorCode.PATTERN_MISMATCH
SIMULATED = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
RTN, GPTQ, AWQ = (SIMULATED | {"type": f"quantize.{name}", "form": "packed"} for name in ("rtn", "gptq", "awq"))
SMOOTH = {"type": "quantize.smoothquant", "form": "packed"}
FP8 = {"type": "quantize.fp8", "form": "packed"}
FLOATS = {"type": "quantize.fp8", "activations": "dynamic"}
DYNAMIC = {"type": "quantize.dynamic", "bits": 4, "group_size": 32}
MIXED = DYNAMIC | {"mixed": True}
EIGHT = DYNAMIC | {"activation_bits": 8, "form": "packed", "symmetric": True}
A8 = {"type": "quantize.activations", "bits": 8}
KV = {"type": "quantize.kv_cache", "k_bits": 4}
KV8 = {"type": "quantize.kv_cache", "dtype": "fp8"}
MAGNITUDE = {"type": "prune.magnitude", "sparsity": 0.5}
OWL = {"allocation": "owl"}
LOWRANK = {"type": "repair.lowrank", "rank": 4}
LOOKING = ("prune.wanda", "prune.sparsegpt", "prune.ria")
SPLIT = (["q_proj"], ["gate_proj", "o_proj"], ["attention", "lm_head"], ["embed_tokens"])
PACKED = {"quantization": {"quant_method": "compressed-tensors"}, "scheme": "w4a16"}


@pytest.fixture
def on(monkeypatch):
    """`on("cpu")`: as where the vLLM of these devices is installed, and the processor has no AMX."""
    monkeypatch.setattr(quantize, "has_amx", lambda: False)
    monkeypatch.setattr(quantize, "has_avx512", lambda: True)
    return lambda *devices: monkeypatch.setattr(quantize, "served_devices", lambda: devices)


ROWS = [
    ("llama", [A8 | {"modules": ["q_proj"]}], NO, "/0/modules"),
    ("llama", [A8 | {"modules": ["gate_proj", "o_proj"]}], NO, "/0/modules"),
    ("llama", [A8 | {"modules": ["attention", "lm_head"]}], NO, "/0/modules"),
    ("llama", [A8 | {"modules": ["c_proj"]}], UNKNOWN, "/0/modules/0"),
    ("llama", [A8 | {"layers": [3]}], UNKNOWN, "/0/layers/0"),
    ("mixtral", [A8], NO, "/0/modules"),
    ("mixtral", [A8 | {"modules": ["router"]}], NO, "/0/modules"),
    ("llama", [KV | {"modules": ["k_proj"]}], NO, "/0/modules"),
    ("llama", [KV | {"layers": [0, 3]}], UNKNOWN, "/0/layers/1"),
    ("llama", [KV | {"group_size": 24}], GROUPS, "/0/group_size"),
    ("llama", [KV8 | {"layers": [0]}], NO, "/0/layers"),
    ("llama", [KV, KV8], NO, "/1"),
    ("llama", [KV8, KV], NO, "/1"),
    ("llama", [AWQ | {"form": "simulated", "modules": ["embed_tokens"]}], NO, "/0/modules"),
    ("llama", [{"type": "quantize.smoothquant", "modules": ["q_proj"]}], NO, "/0/modules"),
    *(("llama", [FLOATS | {"modules": modules}], NO, "/0/modules") for modules in SPLIT),
    ("mixtral", [FLOATS], NO, "/0/modules"),
    ("mixtral", [FLOATS | {"activations": "static"}], NO, "/0"),
    *(("llama", [one | {"form": "simulated", "group_size": 24}], GROUPS, "/0/group_size") for one in (RTN, GPTQ, AWQ)),
    ("llama", [{"type": "quantize.nf4", "group_size": 24}], GROUPS, "/0/group_size"),
    ("mixtral", [RTN], PACKING, "/0/form"),
    ("mixtral", [GPTQ | {"form": "simulated"}], NO, "/0"),
    ("mixtral", [SMOOTH], NO, "/0"),
    ("llama", [RTN, MAGNITUDE], NO, "/1"),
    ("llama", [DYNAMIC | {"form": "packed"}, MAGNITUDE], NO, "/1"),
    ("llama", [DYNAMIC | {"group_size": 48}], GROUPS, "/0/group_size"),
    ("llama", [DYNAMIC | {"modules": ["embed_tokens"]}], NO, "/0/modules"),
    ("llama", [DYNAMIC | {"modules": ["c_proj"]}], UNKNOWN, "/0/modules/0"),
    ("llama", [DYNAMIC | {"bits": 3, "form": "packed"}], PACKING, "/0/bits"),
    ("llama", [MIXED | {"bits": 2.5}], NO, "/0/bits"),
    ("llama", [MIXED | {"bits": 3.5, "form": "packed"}], PACKING, "/0/bits"),
    ("llama", [MIXED | {"bits": 4.5, "form": "packed"}], PACKING, "/0/bits"),
    ("llama", [DYNAMIC | {"activation_bits": 4, "form": "packed"}], PACKING, "/0/activation_bits"),
    ("llama", [MIXED | {"activation_bits": 4, "form": "packed"}], PACKING, "/0/form"),
    ("llama", [EIGHT | {"symmetric": False}], PACKING, "/0/symmetric"),
    ("llama", [EIGHT | {"bits": 8}], PACKING, "/0/group_size"),
    ("llama", [EIGHT | {"group_size": 16}], PACKING, "/0/group_size"),
    ("llama", [DYNAMIC | {"activation_bits": 8, "modules": ["q_proj"]}], NO, "/0/modules"),
    ("llama", [DYNAMIC | {"form": "packed", "modules": ["up_proj"]}], PACKING, "/0/modules"),
    ("mixtral", [DYNAMIC], NO, "/0"),
    ("mixtral", [{"type": "norm.tweak"}], NO, "/0"),
    ("llama", [{"type": "norm.drop", "modules": ["input_norm"]}], UNKNOWN, "/0/modules/0"),
    ("llama", [{"type": "decode.temperature", "temperature": 0.5, "layers": [0]}], NO, "/0/layers"),
    ("llama", [{"type": "decode.temperature", "temperature": 0.5, "modules": ["norm"]}], NO, "/0/modules"),
    ("llama", [A8 | {"dynamic": False}, {"type": "decode.temperature", "temperature": 0.5}], NO, "/1"),
    ("mixtral", [LOWRANK], NO, "/0"),
    ("llama-untied", [LOWRANK | {"modules": ["lm_head"]}], NO, "/0/modules"),
    ("llama", [SIMULATED, LOWRANK | {"rank": 32}], NO, "/1/rank"),
    *(
        ("llama", [*before, LOWRANK | {"iterations": 2}], NO, f"/{len(before)}/iterations")
        for before in (
            [],
            [GPTQ | {"form": "simulated"}],
            [MAGNITUDE | {"scope": "global"}],
            [MAGNITUDE | OWL],
            [{"type": "prune.magnitude", "pattern": "4:8"} | OWL],
        )
    ),
    *(
        (model, [{"type": kind, "sparsity": 0.5} | fields], code, f"/0/{field}")
        for kind in LOOKING
        for model, fields, code, field in (
            ("llama", {"modules": ["lm_head"]}, NO, "modules"),
            ("llama", {"modules": ["q_porj"]}, UNKNOWN, "modules/0"),
            ("llama", {"layers": [0, 7]}, UNKNOWN, "layers/1"),
            ("mixtral", {}, NO, "type"),
            ("mixtral", {"modules": ["router"]}, NO, "type"),
        )
    ),
    *(
        ("llama", [{"type": kind, "pattern": "2:5"} | allocation], PATTERN, "/0/pattern")
        for kind in ("prune.magnitude", *LOOKING)
        for allocation in ({}, OWL)
    ),
    ("mixtral", [MAGNITUDE | OWL], NO, "/0/type"),
    ("llama", [MAGNITUDE | OWL | {"modules": ["lm_head"]}], NO, "/0/modules"),
    ("llama", [{"type": "prune.layers", "layers": [0, 1, 2]}], NO, "/0/layers"),
    ("llama", [{"type": "prune.layers", "layers": [2, 0, 1, 2]}], NO, "/0/layers"),
    ("llama", [{"type": "prune.layers", "layers": [1, 3]}], UNKNOWN, "/0/layers/1"),
    ("llama", [{"type": "prune.layers", "count": 1, "modules": ["mlp"]}], NO, "/0/modules"),
    ("llama", [{"type": "prune.layers", "count": 2}, {"type": "prune.layers", "count": 1}], NO, "/1/count"),
    *(("mixtral", [{"type": f"prune.{part}", "count": 1}], NO, "/0/type") for part in ("layers", "heads", "channels")),
    ("llama", [{"type": "prune.heads", "count": 1}], NO, "/0/count"),
    ("llama", [{"type": "prune.heads", "count": 4, "layers": [0]}], NO, "/0/layers"),
    ("llama", [{"type": "prune.heads", "count": 4, "modules": ["q_proj"]}], NO, "/0/modules"),
]
CPU = [
    ([RTN | {"bits": 3}], PACKING, "/0/bits"),
    ([RTN | {"bits": 8, "symmetric": True}], PACKING, "/0/bits"),
    ([RTN | {"group_size": 1}], PACKING, "/0/group_size"),
    ([SMOOTH | {"activation_bits": 4}], PACKING, "/0/activation_bits"),
    ([SMOOTH | {"bits": 6}], PACKING, "/0/bits"),
    ([SMOOTH | {"bits": 4, "dynamic": False}], PACKING, "/0/dynamic"),
    ([FP8], PACKING, "/0/activations"),
    ([FP8 | {"activations": "static"}], PACKING, "/0/activations"),
    ([RTN | {"modules": ["q_proj"]}], PACKING, "/0/modules"),
    ([GPTQ | {"modules": ["attention", "up_proj"]}], PACKING, "/0/modules"),
    ([RTN | {"modules": ["mlp", "embed_tokens"]}], PACKING, "/0/modules"),
    *(
        ([first | layers[0], second | layers[1]], NO, "/1")
        for first in (A8, FLOATS, SMOOTH | {"form": "simulated"})
        for second in (SMOOTH, FP8 | {"activations": "dynamic"})
        # In one model, if of other layers.
        for layers in (({}, {}), ({"layers": [0]}, {"layers": [1, 2]}))
    ),
]
CUDA = [
    ([RTN | {"bits": 8}], PACKING, "/0/bits"),
    ([RTN | {"group_size": 16}], PACKING, "/0/group_size"),
    ([SMOOTH | {"bits": 4}], PACKING, "/0/bits"),
    ([SMOOTH | {"activation_bits": 4}], PACKING, "/0/activation_bits"),
    *(
        ([fixed, {"type": f"context.{context}", "factor": 2}], NO, "/1")
        for context in ("linear", "ntk", "yarn")
        for fixed in (
            SMOOTH | {"dynamic": False},
            FP8 | {"activations": "static"},
            A8 | {"dynamic": False},
            FLOATS | {"activations": "static"},
        )
    ),
]
WEIGHTS = MIXED | {"bits": 5.5, "form": "packed", "symmetric": True}
WITH_INPUTS = WEIGHTS | {"activation_bits": 8, "group_size": None}


def test_what_no_step_can_do_is_refused_with_the_field(tiny, monkeypatch):
    monkeypatch.setattr(runtime, "has_avx512", lambda: True)  # else the dtype of a cache is refused
    assert wrongly_refused((tiny(kind), steps, code, pointer) for kind, steps, code, pointer in ROWS) == []


def test_what_the_device_has_no_kernel_for_is_refused(tiny, on):
    on("cpu")
    assert wrongly_refused((tiny(), *row) for row in CPU) == []
    assert refused(tiny(), WEIGHTS) == (PACKING, "/0/bits")
    on("cuda")
    assert wrongly_refused((tiny(), *row) for row in CUDA) == []
    for one in (WITH_INPUTS, WEIGHTS | {"symmetric": False}):
        assert refused(tiny(), one) == (PACKING, "/0/bits")
    on("cpu", "cuda")  # without a vLLM beside, what nobody serves
    for one in (RTN | {"bits": 3}, WEIGHTS | {"symmetric": False}):
        assert refused(tiny(), one) == (PACKING, "/0/bits")


def test_the_installed_vllm_tells_the_device():
    assert quantize.served_devices() in {("cpu",), ("cuda",)}


def test_dimensions_that_the_cpu_kernels_do_not_take(tiny, on):
    on("cpu")
    folder, step = tiny("llama", intermediate_size=144), RTN | {"group_size": 16}
    assert refused(folder, step) == (PACKING, "/0/form")
    checked(folder, step | {"modules": ["attention"]})
    checked(folder, SMOOTH)


def test_fixed_grids_are_refused_if_the_kernel_ignores_them(tiny, on, monkeypatch):
    on("cpu")
    fixed = SMOOTH | {"dynamic": False}
    assert checked(tiny(), fixed).scheme == "w8a8"
    monkeypatch.setattr(quantize, "has_amx", lambda: True)
    assert refused(tiny(), fixed) == (PACKING, "/0/dynamic")
    assert checked(tiny(), SMOOTH | {"dynamic": True}).scheme == "w8a8"
    on("cuda")
    assert checked(tiny(), fixed).scheme == "w8a8"


def test_what_the_cpu_build_cannot_store_of_a_cache_is_refused(tiny, monkeypatch):
    info = inspect(tiny("llama"))
    odd = replace(info, config={**info.config, "head_dim": 48})
    monkeypatch.setattr(runtime, "is_cpu_build", lambda: True)
    monkeypatch.setattr(runtime, "has_avx512", lambda: True)
    assert checked(info, KV8).config["hemostat_simulation"]["kv_cache"] == {"dtype": "fp8"}
    assert refused(odd, KV8) == (PACKING, "/0/dtype")
    monkeypatch.setattr(runtime, "has_avx512", lambda: False)
    assert refused(info, KV8) == (PACKING, "/0/dtype")
    monkeypatch.setattr(runtime, "is_cpu_build", lambda: False)
    assert checked(odd, KV8).config["hemostat_simulation"]


@pytest.mark.parametrize("later", [SIMULATED, {"type": "norm.scale", "factor": 2.0}, LOWRANK, SMOOTH])
def test_nothing_changes_the_activations_that_grids_were_fixed_for(tiny, on, later):
    on("cpu")
    info = inspect(tiny())
    simulated = SMOOTH | {"form": "simulated"}
    for fixed, free in (
        (A8 | {"dynamic": False}, A8),
        (simulated | {"dynamic": False}, simulated),
        (FLOATS | {"activations": "static"}, FLOATS),
    ):
        after = later | {"form": "simulated"} if later is SMOOTH else later
        assert refused(info, fixed, KV, after) == (NO, "/2")
        checked(info, after, fixed, KV, A8)
        checked(info, free, KV, after)
        assert refused(checked(info, fixed), after)[0] is NO


def test_a_configuration_may_refuse_a_step(tiny, copy):
    llama = inspect(tiny("llama"))
    half = {"type": "decode.temperature", "temperature": 0.5}
    other = replace(llama, architecture="OtherForCausalLM")
    no_epsilon = {name: value for name, value in llama.config.items() if name != "rms_norm_eps"}
    no_final = {name: tensor for name, tensor in llama.tensors.items() if name != "model.norm.weight"}
    inputs = {"num_bits": 8, "type": "int"}  # without a word compressed-tensors takes them as fixed
    fixed = PACKED["quantization"] | {"config_groups": {"g": {"input_activations": inputs}}}
    longer = {"type": "context.linear", "factor": 2}
    folder = copy("qwen2", num_attention_heads=8, num_key_value_heads=4, head_dim=8)
    edit_json(folder / "config.json", use_sliding_window=True)
    rows = [
        (other, [half], NO, "/0/type"),
        (replace(llama, tensors=no_final), [half], NO, "/0"),
        (replace(other, config=no_epsilon), [{"type": "norm.epsilon", "epsilon": 1}], NO, "/0"),
        (replace(llama, **PACKED), [{"type": "norm.drop"}], NO, ""),
        (replace(llama, tensors={}), [{"type": "norm.drop"}], NO, "/0"),
        (replace(llama, config={**llama.config, "kv_lora_rank": 64}), [KV], NO, "/0"),
        (replace(llama, config={**llama.config, SECTION: {}}), [KV], NO, "/0"),
        (replace(llama, quantization={"kv_cache_scheme": {"num_bits": 8}}), [KV8], NO, "/0/dtype"),
        (replace(llama, quantization=fixed), [longer], NO, "/0"),
        (other, [{"type": "prune.wanda", "sparsity": 0.5}], NO, "/0/type"),
        (other, [{"type": "prune.layers", "layers": [0]}], NO, "/0/type"),
        (inspect(folder), [{"type": "prune.heads", "count": 4}], NO, "/0"),
    ]
    assert wrongly_refused(rows) == []
    inputs["dynamic"] = True
    assert checked(replace(llama, quantization=fixed), longer).max_position == 512
    checked(other, MAGNITUDE)


def test_a_model_with_block_corrections_is_not_mixed_in(tiny, tmp_path):
    other = copytree(tiny(), tmp_path / "other")
    (step,) = recipe({"type": "merge.linear", "other": "b", "weight": 0.5})
    check_other(step, inspect(tiny()), other)
    edit_json(other / "config.json", **{SECTION: {"sha256": "0" * 64}})
    with pytest.raises(HemostatError) as caught:
        check_other(step, inspect(tiny()), other, pointer="/r/0")
    assert (caught.value.code, caught.value.pointer) == (NO, "/r/0/other")


def test_a_reference_that_a_step_runs_is_neither_packed_nor_a_mixture(tiny):
    info = inspect(tiny())
    packed = replace(info, **PACKED)
    for step in (LOWRANK, {"type": "norm.tweak"}):
        assert refused(info, SIMULATED, step, reference=packed) == (NO, "/1")
        checked(info, SIMULATED, step, reference=info)
    checked(info, DYNAMIC, {"type": "prune.gradient", "sparsity": 0.5}, reference=packed)
    assert refused(info, {"type": "norm.tweak"}, reference=inspect(tiny("mixtral")))[0] is NO


def test_layers_keep_their_numbers_behind_a_step_that_acts_at_run_time(tiny, monkeypatch):
    monkeypatch.setattr(runtime, "has_avx512", lambda: True)
    fewer = {"type": "prune.layers", "layers": [0]}
    made = checked(tiny(), KV8, fewer)
    assert (made.layers, made.config["hemostat_simulation"]["kv_cache"]) == (2, {"dtype": "fp8"})
    for simulated in (KV, A8, FLOATS):
        assert refused(tiny(), simulated, fewer) == (NO, "/1")


def test_what_is_near_a_refusal_is_taken(tiny, on):
    on("cpu")
    prune, llama, mixtral = {"type": "prune.magnitude", "sparsity": 0.5}, tiny(), tiny("mixtral")
    checked(mixtral, {"type": "quantize.nf4", "group_size": 32}, {"type": "quantize.fp8"})
    checked(mixtral, FLOATS | {"modules": ["attention"]})
    for modules in SPLIT:
        checked(llama, FLOATS | {"activations": "none", "modules": modules})
    checked(llama, prune, RTN)
    checked(llama, RTN | {"form": "simulated"}, prune)
    checked(llama, prune | {"modules": ["lm_head"]})
    checked(mixtral, prune)
    checked(llama, SIMULATED, LOWRANK | {"iterations": 2})
    checked(llama, LOWRANK | {"rank": 32, "modules": ["mlp"]})
    assert checked(mixtral, {"type": "prune.layers", "layers": [1]}).layers == 2
    for first in (A8, FLOATS, SMOOTH | {"form": "simulated"}):
        checked(llama, first, SMOOTH | {"form": "simulated"})
        checked(llama, first, RTN)
    for step in (SMOOTH, FP8 | {"activations": "dynamic"}, FLOATS, RTN):
        assert checked(llama, step, {"type": "context.linear", "factor": 2}).max_position == 512
    assert checked(llama, {"type": "context.yarn", "factor": 2}, A8 | {"dynamic": False}).max_position == 512
    for kind in ("prune.magnitude", *LOOKING):
        for strength in ({"sparsity": 0.5}, {"pattern": "2:4"}, {"pattern": "4:8"}):
            for allocation in ({}, OWL):
                assert checked(llama, {"type": kind} | strength | allocation) == inspect(llama)


@pytest.mark.parametrize(
    ("kind", "step", "field", "nearest"),
    [
        ("llama", LOWRANK | {"rank": 5000}, "rank", "at most 31"),
        ("llama", A8 | {"modules": ["k_proj", "v_proj"]}, "modules", "q_proj, k_proj, v_proj"),
        ("llama", {"type": "prune.layers", "count": 3}, "count", "2 (ratio 0.6667)"),
        ("llama", {"type": "prune.layers", "ratio": 0.9}, "ratio", "2 (ratio 0.6667)"),
        ("llama", {"type": "prune.layers", "ratio": 0.1}, "ratio", "1 (ratio 0.3333)"),
        ("llama", {"type": "prune.heads", "count": 3}, "count", ": 4 (ratio 0.5)"),
        ("llama", {"type": "prune.heads", "count": 5}, "count", ": 4 (ratio 0.5) and 6 (ratio 0.75)"),
        ("llama", {"type": "prune.heads", "ratio": 0.95}, "ratio", ": 6 (ratio 0.75)"),
        ("granite", {"type": "prune.heads", "count": 1}, "count", ": 2 (ratio 0.25)"),
        ("llama", {"type": "prune.channels", "count": 5000}, "count", "127 (ratio 0.9922)"),
        ("llama", {"type": "prune.channels", "ratio": 0.001}, "ratio", "1 (ratio 0.007812)"),
    ],
)
def test_a_number_that_does_not_work_is_refused_with_the_nearest_that_do(tiny, kind, step, field, nearest):
    # Eight query heads in four groups of two.
    error = refusal(tiny(kind, num_attention_heads=8, num_key_value_heads=4, head_dim=8), step)
    assert (error.code, error.pointer) == (NO, f"/r/0/{field}")
    assert nearest in error.hint


def test_packed_schemes_are_those_that_the_device_serves(tiny, on):
    on("cpu")
    served = [
        (RTN, "w4a16"),
        (GPTQ | {"symmetric": True, "group_size": None}, "w4a16"),
        (AWQ | {"group_size": 2}, "w4a16"),
        (SMOOTH, "w8a8"),
        (SMOOTH | {"dynamic": False}, "w8a8"),
        (SMOOTH | {"bits": 4}, "w4a8"),
        (FP8 | {"activations": "dynamic"}, "fp8"),
    ]
    assert [checked(tiny(), step).scheme for step, _ in served] == [scheme for _, scheme in served]
    on("cuda")
    eight = RTN | {"bits": 8, "symmetric": True}
    assert [checked(tiny(), one).scheme for one in (eight, FP8, FP8 | {"activations": "static"})] == [
        "w8a16",
        "fp8a16",
        "fp8",
    ]
    on("cpu", "cuda")
    checked(tiny(), eight)
    checked(tiny(), SMOOTH | {"bits": 4})


@pytest.mark.parametrize(
    ("devices", "fields", "served", "scheme"),
    [
        (("cpu",), WITH_INPUTS, (4, 8), "w4a8"),
        (("cuda",), WEIGHTS, (4, 8), "w4a16"),
        (("cuda",), WITH_INPUTS | {"bits": 8}, (8,), "w8a8"),
        (("cpu", "cuda"), WEIGHTS, (4, 8), "w4a16"),
        (("cpu", "cuda"), WITH_INPUTS, (4, 8), "w4a8"),
    ],
)
def test_a_packed_mixture_has_the_widths_that_the_device_has_kernels_for(tiny, on, devices, fields, served, scheme):
    on(*devices)
    assert widths(recipe(fields)[0]) == served
    assert checked(tiny(), fields).scheme == scheme
    assert widths(recipe(MIXED | {"bits": 4.5})[0]) == (3, 4, 5, 6, 8)
    assert widths(recipe(DYNAMIC | {"bits": 3})[0]) == (3,)
