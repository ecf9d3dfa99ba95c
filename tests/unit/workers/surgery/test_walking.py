"""What every step that walks through a model shares: its dtype, and what it does about activations without end."""

import tempfile
from pathlib import Path

import pytest
import torch

from app.contracts.errors import ErrorCode
from app.models.checkpoint import fingerprint, inspect
from app.recipes.base import Calibrated
from app.recipes.notices import StepNotice
from app.recipes.recipe import STEPS as TYPES
from tests.support.checked import RECIPE, checked
from tests.support.disk import files_of_at_most
from tests.support.memory import anonymous_bytes, give_back_what_is_free
from tests.support.pruning import operate, rewrite
from tests.support.refusals import refusal_of
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

STEPS = [
    {"type": "quantize.gptq", "bits": 4, "group_size": 32},
    {"type": "quantize.awq", "bits": 4, "group_size": 32},
    {"type": "quantize.smoothquant", "dynamic": False},
    {"type": "quantize.activations", "bits": 8, "dynamic": False},
    {"type": "quantize.fp8", "activations": "static"},
    {"type": "prune.wanda", "sparsity": 0.5},
    {"type": "prune.ria", "sparsity": 0.5, "allocation": "owl"},
    {"type": "prune.sparsegpt", "sparsity": 0.5},
    {"type": "prune.channels", "ratio": 0.5},
    {"type": "prune.layers", "count": 1},
    {"type": "lowrank.asvd", "rank": 4},
    {"type": "lowrank.svdllm", "rank": 4},
    {"type": "norm.tweak", "steps": 1},
    {"type": "prune.magnitude", "sparsity": 0.5, "allocation": "owl"},
    {"type": "quantize.dynamic", "bits": 4, "group_size": 32, "block_epochs": 1},
    {"type": "prune.gradient", "sparsity": 0.5, "passes": 1, "reconstruct_epochs": 1},
    {"type": "repair.lowrank", "rank": 4, "distill_steps": 1},
]

# What a layer without end does to these is shown beside them: heads are told by what comes before that layer's MLP.
ELSEWHERE = {"prune.heads"}


def of_types(*types):
    """The examples of some types, as parameters of a test."""
    return pytest.mark.parametrize("step", [one for one in STEPS if one["type"] in types], ids=lambda one: one["type"])


def text(_):
    tokens_NL = torch.randint(2, 300, (4, 16), generator=torch.Generator().manual_seed(0))
    return CalibrationText(tokens_NL, "0" * 64, documents=4, asked=4)


def test_no_type_that_reads_text_is_left_out():
    looking = {name for name, kind in TYPES.items() if issubclass(kind, Calibrated)}
    shown = {step["type"] for step in STEPS}
    assert shown | ELSEWHERE == looking
    assert not shown & ELSEWHERE


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step["type"])
def test_inputs_without_end_are_refused_also_in_the_last_layer(copy, store, step):
    # in the last layer, where no later block would be given what is not finite
    name = "model.layers.2.post_attention_layernorm.weight"
    folder = rewrite(copy(), lambda tensors: tensors[name].fill_(3e38))
    error = refusal_of(operate, folder, store, step, calibration=text)
    assert error.code == ErrorCode.ACTIVATIONS_NOT_FINITE
    assert "layers.2" in error.detail or "layer 2" in error.detail
    assert error.pointer == "/candidate/recipe/0"
    assert error.hint
    assert store.keys == ()


def test_blocks_and_references_that_cannot_be_aligned_are_refused_before_any_work(tiny):
    tweak, repair = {"type": "norm.tweak"}, {"type": "repair.lowrank", "rank": 4}
    for step in ({"type": "prune.layers", "layers": [1]}, {"type": "extend.duplicate", "layers": [0]}):
        error = refusal_of(checked, tiny(), step, tweak)
        assert (error.code, error.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, "/r/1")
    for step in (tweak, repair):
        assert checked(tiny(), step, reference=inspect(tiny())) == inspect(tiny())
        error = refusal_of(checked, tiny(), step, reference=inspect(tiny("llama", hidden_size=128)))
        assert (error.code, error.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, "/r/0")
        assert error.hint


@pytest.mark.parametrize(
    ("step", "size"),
    [
        ({"type": "prune.wanda", "sparsity": 0.5}, 6_000),  # activations take 8,192
        ({"type": "norm.scale", "factor": 2.0}, 150),  # a norm's weight takes more with its header
        ({"type": "extend.identity"}, 200_000),  # the whole checkpoint
    ],
)
def test_a_full_disk_is_said_so_wherever_it_fills_up(tiny, store, step, size):
    with files_of_at_most(10**9):
        fingerprint(tiny())
    with files_of_at_most(size):
        error = refusal_of(operate, tiny(), store, step, calibration=text)
    assert error.code is ErrorCode.DISK_FULL
    assert store.keys == ()
    assert not list(store.root.glob(".staging-*"))


def test_less_text_than_asked_for_and_windows_beyond_the_context_are_told(tiny, store):
    long = CalibrationText(torch.full((1, 300), 5), "0" * 64, documents=1, asked=4)
    with operate(tiny(), store, {"type": "prune.wanda", "sparsity": 0.5}, calibration=lambda _: long) as modified:
        (record,) = modified.manifest.steps
    assert StepNotice.SHORT_CALIBRATION_TEXT(windows=1, window=300, asked=4) in record.warnings
    assert StepNotice.LONGER_THAN_CONTEXT(window=300, context=256) in record.warnings


@of_types("quantize.gptq", "quantize.awq", "prune.sparsegpt")
def test_work_on_one_matrix_asks_often_whether_to_go_on(tiny, store, step):
    folder = tiny("llama", intermediate_size=512)

    def calls_of(layers):
        calls = []
        chosen = step | {"modules": ["down_proj"], "layers": layers}
        operate(folder, store, chosen, calibration=text, check_cancelled=lambda: calls.append(1)).release()
        return len(calls)

    # one more matrix of 512 inputs: a check for each block of columns, or each candidate, not one for the matrix
    assert calls_of([0, 1]) - calls_of([0]) >= 5


@of_types(
    *("quantize.gptq", "quantize.awq", "quantize.smoothquant", "quantize.dynamic", "lowrank.asvd", "lowrank.svdllm"),
    *("prune.wanda", "prune.ria", "prune.sparsegpt", "prune.channels", "prune.gradient", "norm.tweak"),
)
def test_memory_holds_one_block_however_many_there_are(copy, tmp_path, step):
    """Twenty blocks more have 10 MB of weights, 20 MB in float32, and 26 MB of second moments.

    What an allocator keeps between two runs moves a peak by some megabytes, either way: blocks that are held show in
    every one of three pairs of runs, that in one or another.
    """
    wide = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2}
    models = {layers: copy(name=f"deep-{layers}", num_hidden_layers=layers, **wide) for layers in (4, 24)}

    def most(layers):
        store = CheckpointStore(Path(tempfile.mkdtemp(dir=tmp_path)), 10**9)
        fingerprint(models[layers])  # which reads 16 MB at a time, once
        give_back_what_is_free()
        before, peak, walking = anonymous_bytes(), 0, False

        def tell(phase, _done, _total):
            nonlocal walking
            walking = phase != "write"

        def look():
            nonlocal peak
            if walking:
                peak = max(peak, anonymous_bytes())

        options = {"device": "cpu", "store": store, "calibration": text, "progress": tell, "check_cancelled": look}
        apply(inspect(models[layers]), RECIPE.validate_python([step]), **options).release()
        return peak - before

    most(4)  # what libraries take once
    assert any(most(24) - most(4) < 7e6 for _ in range(3))


@of_types(
    *("quantize.gptq", "prune.sparsegpt", "lowrank.svdllm", "quantize.dynamic", "prune.gradient", "repair.lowrank")
)
def test_less_text_than_a_matrix_takes_that_is_inverted_is_warned_of(tiny, store, step):
    with operate(tiny(), store, step, calibration=text) as modified:
        told = [one.facts for one in modified.manifest.steps[0].warnings]
    # 4 windows of 16 tokens, layers of 64 and 128 inputs
    assert any(one.get("tokens") == 64 or (one.get("inputs") == 128 and "share" in one) for one in told)
