"""What is refused of an attribution before it is queued, with the field to blame."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.contracts.blocks import SECTION
from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.attribute.plan import attribution_cost, check_attribution, inner_windows
from app.kinds.attribute.request import AttributeRequest
from app.models.checkpoint import inspect
from app.models.pace import TOKENS_PER_SECOND, Pace

# On the processor that rates of estimates were measured on (`app.models.pace`).
BENCH = Path(__file__).resolve().parents[3] / "bench" / "results" / "cpu-x86_64-avx512-bf16-2-threads.csv"
# That processor.
HERE = Pace(TOKENS_PER_SECOND, "")


def request(**changes):
    return AttributeRequest.model_validate(
        {"kind": "attribute", "reference": {"model": "a"}, "self_check": True, "candidate": {"model": "a"}} | changes
    )


@pytest.fixture(scope="module")
def info(tiny):
    return inspect(tiny("llama"))


def test_what_cannot_be_is_refused(info):
    check_attribution(request(), info, info)
    wide = replace(info, hidden_size=2 * info.hidden_size)
    other = replace(info, architecture="OtherForCausalLM")
    kept = {"format": "nvfp4-pack-quantized", "config_groups": {"group_0": {"targets": ["Linear"]}}}
    for changes, candidate, code, pointer in (
        ({"layers": [0, 7]}, info, ErrorCode.UNKNOWN_MODULE, "/layers/1"),
        ({"levels": ["layer", "layer"]}, info, ErrorCode.INVALID_REQUEST, "/levels/1"),
        ({"directions": ["swap", "swap"]}, info, ErrorCode.INVALID_REQUEST, "/directions/1"),
        ({"levels": ["expert"]}, info, ErrorCode.INVALID_REQUEST, "/levels/0"),
        ({"window": 4}, info, ErrorCode.INVALID_REQUEST, "/window"),
        ({}, wide, ErrorCode.CHECKPOINT_UNSUPPORTED, "/candidate/model"),
        ({}, other, ErrorCode.CHECKPOINT_UNSUPPORTED, "/candidate/model"),
        ({}, replace(info, config=info.config | {SECTION: {}}), ErrorCode.CHECKPOINT_UNSUPPORTED, "/candidate/model"),
        ({}, replace(info, quantization=kept), ErrorCode.CHECKPOINT_UNSUPPORTED, "/candidate/model"),
    ):
        with pytest.raises(HemostatError) as error:
            check_attribution(request(**changes), info, candidate)
        assert (error.value.code, error.value.pointer) == (code, pointer)
        assert error.value.hint
    for changes in ({"directions": ["restore"]}, {"budget": 0.5}, {"top": 0}, {"levels": ["tensor"]}, {"tokens": 3}):
        with pytest.raises(ValidationError):
            request(**changes)


def cost(info, text, **changes):
    return attribution_cost(request(**changes), (info, info), text, HERE)


def test_the_cost_grows_with_budget_and_is_bounded_by_the_text(info):
    small = cost(info, 1000, tokens=4096, budget=10, internals=False)
    large = cost(info, 100_000, tokens=4096, budget=100, internals=False)
    assert small.tokens == 1000
    assert large.tokens == 4096
    assert large.passes - small.passes == 90
    # two models, a border before and after every layer, two bytes a number
    assert small.bytes == 2 * 2 * 1000 * info.hidden_size * (info.layers + 1)


def test_the_estimate_is_what_the_bench_measured(info):
    """Per pass of the search that `make bench` runs: every layer swapped once, one direction, nothing inside."""
    with BENCH.open(newline="", encoding="utf-8") as rows:
        row = {one["metric"]: float(one["value"]) for one in csv.DictReader(rows) if one["bench"] == "attribute"}
    asked = {"levels": ["layer"], "directions": ["swap"], "internals": False, "budget": row["counted_forward_passes"]}
    found = cost(info, 100_000, **asked)
    assert found.tokens == row["tokens"]
    measured = row["swap_seconds"] / row["counted_forward_passes"]
    assert found.seconds / found.passes * 134.5e6 / info.parameters == pytest.approx(measured, rel=0.1)


def test_on_a_gpu_a_pass_is_its_products_and_its_weights_from_the_disk(info):
    """An H100 does 989 TFLOP/s in bf16 and 67 in float32, of which 40 % are reached; the disk gives 1 GB/s."""
    asked, gpu = request(budget=100, tokens=4096, window=512), Pace(1.0, "", "NVIDIA H100 80GB HBM3")
    found = attribution_cost(asked, (info, info), 100_000, gpu)
    products = found.passes * 4096 / 989e12 + 6 * 4096 / 67e12
    expected = 2 * info.parameters * (products / 0.4 + (found.passes + 6) / 1e9)
    assert found.seconds == pytest.approx(expected)
    assert not any("tokens/s" in told for told in found.assumptions)


def test_of_layers_that_are_named_no_more_is_estimated_than_all_of_their_parts_take(info):
    def search(**changes):
        return cost(info, 1000, internals=False, **changes).passes - cost(info, 1000, internals=False, budget=1).passes

    last = info.layers - 1
    early, late = search(layers=[0], budget=1000), search(layers=[last], budget=1000)
    assert 0 < late < early < 999, "a swap of a later layer runs fewer of them"
    assert search(layers=[0, last], budget=1000) == pytest.approx(early + late + 1)
    assert search(layers=[0], budget=2) == pytest.approx(1), "the budget holds all the same"
    assert search(layers=[0], levels=["layer"], budget=1000) < early / 5
    assert search(budget=1000) == 999


def test_what_is_measured_inside_counts_beside_the_budget(info):
    without, inside = (cost(info, 100_000, tokens=4096, window=512, internals=one) for one in (False, True))
    assert inside.passes == without.passes
    assert without.inner == 0
    assert inside.seconds > without.seconds
    # float32 of two models at all borders
    assert inside.bytes - without.bytes == 4 * info.hidden_size * 2 * (info.layers + 1) * 4096
    # eight windows of 512
    assert inside.inner == 6 * 4096


def test_models_of_two_depths_cost_no_swaps_and_at_least_the_alignment(info):
    shallow = replace(info, layers=info.layers - 1)

    def between(internals):
        asked = request(tokens=512, window=128, internals=internals)
        return attribution_cost(asked, (info, shallow), 100_000, HERE)

    aligned, inside = between(internals=False), between(internals=True)
    assert aligned.passes == inside.passes == 0
    # two models to their borders, all matched layers, a control, and one gap put in and undone
    assert aligned.inner == 6 * 512
    assert inside.inner == 8 * 512
    assert aligned.bytes == inside.bytes == 4 * info.hidden_size * (2 * info.layers + 1) * 512


def test_more_text_than_is_looked_at_inside_costs_no_more(info):
    small, large = (cost(info, 100_000, tokens=tokens, window=128).inner for tokens in (2048, 50_000))
    assert small == large
    assert cost(info, 100_000, tokens=512, window=128).inner < small


def test_windows_are_cut_so_that_attention_of_all_heads_fits(info):
    windows, length = inner_windows((info, info), 10**6)
    heads = info.config["num_attention_heads"]
    assert 4 * heads * length**2 <= 512 * 2**20 < 4 * heads * (length + 1) ** 2
    assert windows == 8
    assert inner_windows((info, info), 64) == (32, 64)
