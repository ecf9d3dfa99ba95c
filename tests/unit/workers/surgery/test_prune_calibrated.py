"""Unstructured calibrated pruning as recipes: exact numbers on several architectures, compositions, bad inputs."""

import pytest
import torch

from tests.support.pruning import linears, operate, rewrite, weights
from tests.support.stopping import Stop, StoppedError

METHODS = ["prune.wanda", "prune.sparsegpt", "prune.ria"]


@pytest.mark.parametrize(("method", "kind"), list(zip(METHODS, ["llama", "qwen2", "gemma2"], strict=True)))
def test_two_of_four_and_nothing_else_changed(tiny, store, method, kind):
    before = weights(tiny(kind))
    with operate(tiny(kind), store, {"type": method, "pattern": "2:4"}) as modified:
        after, manifest = weights(modified.path), modified.manifest
    assert after.keys() == before.keys()
    for name, weight in after.items():
        if name in linears(after):
            assert torch.equal((weight == 0).reshape(-1, 4).sum(1), torch.full((weight.numel() // 4,), 2)), name
            kept = weight != 0
            if method != "prune.sparsegpt":
                assert torch.equal(weight[kept], before[name][kept])
        else:
            assert torch.equal(weight, before[name])
    assert manifest.sparsity == 0.5
    assert {change.nominal_sparsity for change in manifest.tensors} == {0.5}
    assert manifest.steps[0].calibration_tokens == 6 * 48


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scope", ["row", "layer"])
def test_shares_are_met_to_the_element(tiny, store, method, scope):
    with operate(tiny(), store, {"type": method, "sparsity": 0.37, "scope": scope}) as modified:
        after = linears(weights(modified.path))
    assert len(after) == 21
    for weight in after.values():
        if scope == "row":
            assert torch.equal((weight == 0).sum(1), torch.full((len(weight),), round(0.37 * weight.shape[1])))
        else:
            assert int((weight == 0).sum()) == round(0.37 * weight.numel())


@pytest.mark.parametrize(
    ("method", "scope"), [("prune.wanda", "row"), ("prune.ria", "layer"), ("prune.sparsegpt", "layer")]
)
def test_shares_of_layers_average_to_the_one_asked_for(tiny, store, method, scope):
    step = {"type": method, "sparsity": 0.6, "scope": scope, "allocation": "owl", "owl_threshold": 2}
    with operate(tiny(), store, step) as modified:
        after, manifest = linears(weights(modified.path)), modified.manifest
    total = sum(weight.numel() for weight in after.values())
    assert sum(int((weight == 0).sum()) for weight in after.values()) == round(0.6 * total)
    of_layer = {}
    for change in manifest.tensors:
        of_layer.setdefault(change.name.split(".")[2], set()).add(change.nominal_sparsity)
        assert change.sparsity == pytest.approx(change.nominal_sparsity, abs=1 / change.elements)
    shares = sorted(share for (share,) in of_layer.values() if share is not None)
    assert len(set(shares)) == 3
    assert max(shares[-1] - 0.6, 0.6 - shares[0]) == pytest.approx(0.08)
    assert manifest.steps[0].figures == pytest.approx({"owl_share_least": shares[0], "owl_share_most": shares[-1]})


def with_outliers(copy, shares):
    """A model whose layer i has `shares[i]` of weights a hundred times the others, in a fixed place of each matrix."""

    def change(tensors):
        for name in linears(tensors):
            chance = torch.rand(tensors[name].shape, generator=torch.Generator().manual_seed(len(name)))
            great = chance < shares[int(name.split(".")[2])]
            tensors[name] = torch.where(great, 0.5, 0.005).to(torch.bfloat16) * torch.sign(tensors[name] + 1e-9)

    return rewrite(copy("llama"), change)


OWL = {"allocation": "owl", "owl_range": 0.25}


@pytest.mark.parametrize(
    ("method", "pattern", "kept"),
    [
        ("prune.wanda", "4:8", [4, 6, 2]),
        ("prune.sparsegpt", "2:4", [2, 3, 1]),
        ("prune.ria", "3:8", [3, 5, 1]),
        ("prune.sparsegpt", "4:16", [4, 7, 1]),
    ],
)
def test_each_layer_keeps_an_n_of_its_own_by_its_outliers(copy, store, method, pattern, kept):
    """Outliers 6, 10 and 2 %: as far above the mean as below it, and no further than leaves each layer 1 of M."""
    folder = with_outliers(copy, (0.06, 0.10, 0.02))
    n, of = map(int, pattern.split(":"))
    with operate(folder, store, {"type": method, "pattern": pattern} | OWL) as modified:
        after, manifest = linears(weights(modified.path)), modified.manifest
    found = {}
    for name, weight in after.items():
        found.setdefault(int(name.split(".")[2]), set()).update((weight != 0).reshape(-1, of).sum(1).tolist())
    assert found == {layer: {one} for layer, one in enumerate(kept)}
    for change in manifest.tensors:
        assert change.nominal_sparsity == 1 - kept[int(change.name.split(".")[2])] / of
        assert change.zeros == int((after[change.name] == 0).sum())
        assert change.sparsity == pytest.approx(change.nominal_sparsity, abs=1e-15)
    assert sum(change.zeros for change in manifest.tensors) * of == (of - n) * sum(w.numel() for w in after.values())
    assert (manifest.sparsity, manifest.nominal_sparsity) == (1 - n / of, pytest.approx(1 - n / of, abs=1e-15))
    assert manifest.steps[0].figures == {"owl_share_least": 1 - max(kept) / of, "owl_share_most": 1 - min(kept) / of}
    assert not any(one.code.startswith("owl") for one in manifest.steps[0].warnings)


def test_shares_that_all_round_to_the_pattern_make_what_uniform_makes_and_say_so(tiny, store):
    step = {"type": "prune.wanda", "pattern": "2:4"}
    with operate(tiny(), store, step | {"allocation": "owl"}) as owl, operate(tiny(), store, step) as uniform:
        mixed, even = weights(owl.path), weights(uniform.path)
        assert any(one.code == "owl_rounds_away" for one in owl.manifest.steps[0].warnings)
        assert not any(one.code.startswith("owl") for one in uniform.manifest.steps[0].warnings)
    assert all(torch.equal(mixed[name], even[name]) for name in even)


def test_where_sizes_alone_forbid_layers_to_differ_the_manifest_says_so(copy, store):
    folder = with_outliers(copy, (0.02, 0.06, 0.10))
    # of sizes 1 and 2: 3.2 and 4.4 of 8, and what one gives or takes the other cannot take or give
    modules = ["0.self_attn.q_proj", "2.mlp.gate_proj"]
    step = {"type": "prune.wanda", "pattern": "4:8", "allocation": "owl"}
    with operate(folder, store, step | {"modules": modules, "owl_range": 0.1}) as modified:
        sizes = [change.elements for change in modified.manifest.tensors]
        assert {change.nominal_sparsity for change in modified.manifest.tensors} == {0.5}
        assert any(one.code == "owl_unlike_layers" for one in modified.manifest.steps[0].warnings)
    assert sizes[1] == 2 * sizes[0]
    # of one size: 3.2 and 4.8 of 8
    modules = ["0.self_attn.q_proj", "2.self_attn.q_proj"]
    with operate(folder, store, step | {"modules": modules, "owl_range": 0.1}) as modified:
        assert {change.nominal_sparsity for change in modified.manifest.tensors} == {5 / 8, 3 / 8}
        assert not any(one.code.startswith("owl") for one in modified.manifest.steps[0].warnings)


# ---- compositions

RTN = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
WANDA = {"type": "prune.wanda", "sparsity": 0.5}
SPARSEGPT = {"type": "prune.sparsegpt", "pattern": "2:4"}


def test_after_quantization_the_grid_stays_and_the_number_is_exact(tiny, store):
    with operate(tiny(), store, RTN) as one, operate(tiny(), store, RTN, WANDA) as two:
        quantized, pruned = linears(weights(one.path)), linears(weights(two.path))
    for name, weight in pruned.items():
        zeros = (quantized[name] == 0).sum(1)
        assert torch.equal((weight == 0).sum(1), zeros.clamp(min=weight.shape[1] // 2)), name
        assert torch.equal(weight[weight != 0], quantized[name][weight != 0])


# ---- bad inputs


def test_it_can_be_cancelled(tiny, store):
    with pytest.raises(StoppedError):
        operate(tiny(), store, SPARSEGPT, check_cancelled=Stop(41))
