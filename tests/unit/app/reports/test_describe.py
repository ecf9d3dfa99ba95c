import pytest

from app.reports import describe


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"type": "quantize.rtn", "bits": 4, "group_size": 64, "symmetric": False}, "4-bit RTN, group 64, asymmetric"),
        (
            {"type": "quantize.gptq", "bits": 4, "symmetric": True, "form": "packed"},
            "4-bit GPTQ, group 64, symmetric, packed",
        ),
        ({"type": "quantize.awq", "bits": 3, "group_size": 32}, "3-bit AWQ, group 32, asymmetric"),
        (
            {"type": "quantize.smoothquant", "activation_bits": 4, "dynamic": False},
            "SmoothQuant W8A4, static, strength 0.500",
        ),
        (
            {"type": "quantize.fp8", "activations": "dynamic", "form": "packed"},
            "FP8 weights, dynamic activations, packed",
        ),
        ({"type": "prune.magnitude", "sparsity": 0.5, "scope": "row"}, "magnitude pruning 50.0 % per row"),
        ({"type": "prune.magnitude", "pattern": "2:4", "sparsity": None}, "magnitude pruning 2:4"),
        (
            {"type": "quantize.dynamic", "bits": 4.5, "mixed": True},
            "4.5-bit on average, mixed, dynamic scaling, group 64, blocks fitted over 3 epochs",
        ),
        (
            {"type": "repair.lowrank", "rank": 16},
            "low-rank repair, mean rank 16, blocks fitted over 3 epochs, 60 steps of distillation",
        ),
        (
            {"type": "repair.lowrank", "rank": 4, "block_epochs": 0, "distill_steps": 0},
            "low-rank repair, mean rank 4, closed form alone",
        ),
        (
            {"type": "quantize.rtn", "bits": 3, "layers": [0, 1, 2, 7], "modules": ["down_proj"]},
            "3-bit RTN, group 64, asymmetric (only layers 0–2, 7; down_proj)",
        ),
        ({"type": "some.thing", "rank": 64, "seed": 3, "other": None}, "some.thing"),
        ({"type": "lowrank.svdllm", "rank": None, "ratio": 0.25}, "SVD-LLM, 25.0 % smaller"),
        ({"type": "prune.wanda", "sparsity": 0.5, "allocation": "owl"}, "Wanda pruning 50.0 % per row, OWL"),
        ({"type": "prune.sparsegpt", "pattern": "4:8", "scope": "layer"}, "SparseGPT pruning 4:8"),
        (
            {"type": "prune.gradient", "sparsity": None, "pattern": "2:4", "recovery_s": 600.0},
            "gradient-aware pruning 2:4, 600 s of recovery",
        ),
        ({"type": "prune.layers", "layers": [3, 4]}, "layers 3–4 dropped"),
        ({"type": "prune.heads", "count": 3}, "3 attention heads dropped in every layer"),
        ({"type": "prune.channels", "ratio": 0.25}, "25.0 % of the MLP channels dropped in every layer"),
        ({"type": "lowrank.svd", "rank": 8, "layers": [1]}, "SVD, rank 8 (only layer 1)"),
        ({"type": "extend.duplicate", "layers": [8, 9, 10]}, "layers 8–10 repeated"),
        ({"type": "extend.identity"}, "every layer followed by identities"),
        ({"type": "extend.width", "heads": 2, "channels": 1, "noise": 0.1}, "wider: heads × 2, noise 0.1"),
        ({"type": "context.ntk", "factor": 4.0}, "context × 4 (NTK)"),
        ({"type": "moe.topk", "experts": 1}, "1 expert a token"),
        ({"type": "moe.router", "noise": 0.5}, "router noise 0.5"),
        ({"type": "merge.linear", "other": "b", "weight": 0.25}, "merged with b (0.25)"),
        ({"type": "adapter.lora", "adapter": "a", "strength": 2.0}, "LoRA merged, strength 2"),
        ({"type": "quantize.activations", "bits": 8}, "8-bit activations, a grid a token, symmetric"),
        (
            {"type": "quantize.kv_cache", "k_bits": 4, "v_bits": 2, "group_size": 32},
            "4-bit keys and 2-bit values, group 32",
        ),
        ({"type": "quantize.kv_cache", "dtype": "fp8_e5m2", "k_bits": None}, "fp8_e5m2 keys and values"),
        ({"type": "norm.scale", "factor": 0.5, "shift": -0.1}, "norms × 0.5 − 0.1"),
        ({"type": "norm.epsilon", "epsilon": 1e-3}, "norm epsilon 0.001"),
        ({"type": "norm.drop", "layers": [0, 1]}, "norms without weights (only layers 0–1)"),
        ({"type": "norm.tweak", "steps": 20}, "norm tweaking, 20 steps per block"),
        ({"type": "decode.temperature", "temperature": 0.7}, "temperature 0.7"),
        ({}, "unknown step"),
    ],
)
def test_a_step_in_words(step, words):
    assert describe.step(step) == words


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([8, 6, 4, 3], "bits from 8 to 3 (4 values)"),
        ([4, 3, 8], "bits from 3 to 8 (3 values)"),
        ([4, 8, 3], "bits from 8 to 3 (3 values)"),
        (["2:4", "4:8"], "bits from 2:4 to 4:8 (2 values)"),
    ],
)
def test_a_knob_is_told_by_its_range_whatever_the_order_of_its_values(values, words):
    assert describe.step({"type": "quantize.rtn", "bits": {"sweep": values}}) == f"quantize.rtn with {words}"


def test_knobs_stand_where_a_request_writes_them():
    steps = [{"type": "prune.wanda", "sparsity": 0.2}, {"type": "quantize.rtn", "bits": 8}]
    knobs = [{"step": 1, "field": "bits", "values": (8, 4)}, {"step": 2, "field": "bits", "values": (1, 2)}]
    assert describe.with_knobs(steps, knobs) == [steps[0], {"type": "quantize.rtn", "bits": {"sweep": [8, 4]}}]
    assert steps[1]["bits"] == 8
    assert describe.with_knobs(steps, []) == steps


def test_steps_stand_in_the_order_in_which_they_were_applied():
    steps = [{"type": "prune.magnitude", "pattern": "2:4"}, {"type": "quantize.rtn", "bits": 4}]
    assert describe.recipe(steps) == "magnitude pruning 2:4, then 4-bit RTN, group 64, asymmetric"
    assert describe.recipe([]) == ""
