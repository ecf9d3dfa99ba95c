"""Swaps against transformers' own model with the swapped weights, run from end to end in another way."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from app.models.checkpoint import inspect
from tests.support.tiny import make_checkpoint
from tests.unit.workers.diagnosis.attribute.swapped import (
    HEADS,
    by_name,
    differing_of,
    noisy,
    pair,
    subset,
    swapper,
    whole_model_kl,
)
from workers.diagnosis.attribute import swapping
from workers.diagnosis.attribute.mixing import CONTROL, Mode
from workers.diagnosis.attribute.sites import EMBEDDING, HEAD, sites_of
from workers.surgery.callbacks import never_cancelled

TEXT = subset()
TOUCHED = (
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.1.self_attn.v_proj.weight",
    "model.layers.1.self_attn.o_proj.weight",
    "model.layers.1.mlp.down_proj.weight",
    "model.layers.2.input_layernorm.weight",
    "model.norm.weight",
)

QWEN = {
    "kind": "llama-untied",
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64,
}


def harm(weights):
    noisy(weights, *TOUCHED[:4])
    for name in TOUCHED[4:]:
        weights[name] = (weights[name].float() * torch.linspace(0.6, 1.4, len(weights[name]))).to(torch.bfloat16)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return pair(tmp_path_factory.mktemp("models"), harm, **HEADS)


@pytest.mark.parametrize(
    ("site", "tensors"),
    [
        ("layers.1", [name for name in TOUCHED if ".1." in name]),
        ("layers.1.mlp.down_proj", ["model.layers.1.mlp.down_proj.weight"]),
        ("layers.2.input_layernorm", ["model.layers.2.input_layernorm.weight"]),
        ("norm", ["model.norm.weight"]),
    ],
)
@pytest.mark.parametrize("into", ["reference", "candidate"])
def test_a_swap_is_the_whole_model_with_these_weights(models, tmp_path, site, tensors, into):
    own, other = models if into == "reference" else models[::-1]
    replaced = {name: load_file(other / "model.safetensors")[name] for name in tensors}
    expected = whole_model_kl(models[0], own, replaced, TEXT)
    with swapper(*models, tmp_path, TEXT, torch.float32) as found:
        kl = found.kl([by_name(models[0])[site]], into=into)
    # the head rounds hidden states to bf16, which is worth a few per cent at one position and little on average
    assert kl.mean() == pytest.approx(expected.mean(), rel=0.02, abs=1e-7)
    assert np.corrcoef(kl, expected)[0, 1] > 0.995


@pytest.fixture(scope="module", params=["llama", "llama-untied", "gemma2"], ids=["tied", "untied", "scaled"])
def outside(request, tmp_path_factory):
    """Embedding and head differ, and a module of the first layer."""

    def harm_outside(weights):
        noisy(weights, *(name for name in (EMBEDDING, HEAD, TOUCHED[0]) if name in weights))

    return pair(tmp_path_factory.mktemp("outside"), harm_outside, request.param, **HEADS)


@pytest.mark.parametrize("site", ["embed_tokens", "lm_head"])
@pytest.mark.parametrize("into", ["reference", "candidate"])
def test_where_tokens_come_in_and_where_logits_are_made_are_swapped_one_without_the_other(
    outside, tmp_path, site, into
):
    own, other = outside if into == "reference" else outside[::-1]
    theirs = load_file(other / "model.safetensors")
    name = EMBEDDING if site == "embed_tokens" else HEAD
    expected = whole_model_kl(outside[0], own, {name: theirs.get(name, theirs[EMBEDDING])}, TEXT)
    assert expected.mean() > 0.005  # there is something to be right about
    with swapper(*outside, tmp_path, TEXT, torch.float32) as found:
        kl = found.kl([by_name(outside[0])[site]], into=into)
        whole = found.kl((), into="candidate")
    assert kl.mean() == pytest.approx(expected.mean(), rel=0.02)
    assert np.corrcoef(kl, expected)[0, 1] > 0.995
    assert kl.mean() != pytest.approx(whole.mean(), rel=0.05)


def test_a_group_of_heads_is_its_rows_and_columns(models, tmp_path):
    ours, theirs = (load_file(folder / "model.safetensors") for folder in models)
    mixed = {name: ours[name].clone() for name in ours if ".1.self_attn." in name}
    prefix, size = "model.layers.1.self_attn.", 32
    # the second key-value head serves query heads 2 and 3
    mixed[f"{prefix}v_proj.weight"][size : 2 * size] = theirs[f"{prefix}v_proj.weight"][size : 2 * size]
    mixed[f"{prefix}o_proj.weight"][:, 2 * size : 4 * size] = theirs[f"{prefix}o_proj.weight"][:, 2 * size : 4 * size]
    expected = whole_model_kl(models[0], models[0], mixed, TEXT)
    with swapper(*models, tmp_path, TEXT, torch.float32) as found:
        kl = found.kl([by_name(models[0])["layers.1.self_attn.heads.1"]])
    assert kl.mean() == pytest.approx(expected.mean(), rel=0.02)


def test_every_part_swapped_by_itself_changes_nothing_to_the_last_bit(models, tmp_path):
    with swapper(*models, tmp_path, TEXT) as found:
        for site in sites_of(inspect(models[0])):
            assert found.kl([site], mode=CONTROL).max() == 0, site.name


def test_all_parts_together_are_the_candidate(models, tmp_path):
    sites = [site for site in sites_of(inspect(models[0])) if site.kind in {"layer", "embedding", "head"}]
    with swapper(*models, tmp_path, TEXT) as found:
        whole = found.kl((), into="candidate")
        assert whole.mean() > 0.01
        np.testing.assert_array_equal(found.kl([*sites, by_name(models[0])["norm"]]), whole)
        assert found.kl([*sites, by_name(models[0])["norm"]], into="candidate").max() == 0


def test_a_part_put_back_leaves_the_model_as_it_was(models, tmp_path):
    sites = by_name(models[0])
    with swapper(*models, tmp_path, TEXT) as found:
        before = found.kl((), into="candidate")
        for name in ("layers.1", "norm", "layers.1.self_attn.heads.0", "layers.2.input_layernorm"):
            found.kl([sites[name]], into="candidate")
            found.kl([sites[name]], mode=Mode("twin", 1), into="candidate")
        for file in found.ledger.iterdir():
            file.unlink()
        np.testing.assert_array_equal(found.kl((), into="candidate"), before)


def test_batches_are_measured_once_and_found_again(models, tmp_path, monkeypatch):
    text = subset(windows=180)
    site = by_name(models[0])["layers.1"]
    with swapper(*models, tmp_path, text) as found:
        assert len(found.batches) == 3
        first = found.kl([site], batches=1)
        ran = found.run_layers
        whole = found.kl([site])
        np.testing.assert_array_equal(whole[: len(first)], first)
        assert len(first) == found.positions(1)
        assert found.run_layers > ran
    with swapper(*models, tmp_path, text) as again:
        again.check_cancelled = never_cancelled
        np.testing.assert_array_equal(again.kl([site]), whole)
        assert again.run_layers == 0


def test_text_that_does_not_fit_into_memory_is_run_in_turns(models, tmp_path, monkeypatch):
    text = subset(windows=180)
    site = by_name(models[0])["layers.1"]
    with swapper(*models, tmp_path / "whole", text) as found:
        whole, ran = found.kl([site]), found.run_layers
    monkeypatch.setattr(swapping, "STATES_BYTES", 1)
    with swapper(*models, tmp_path / "turns", text) as found:
        np.testing.assert_array_equal(found.kl([site]), whole)
        assert found.run_layers == 3 * ran


@pytest.mark.parametrize(
    ("options", "experts", "down"),
    [
        ({"kind": "mixtral"}, "layers.1.block_sparse_moe.experts", "w2"),
        (QWEN | {"model_type": "qwen2_moe"}, "layers.1.mlp.experts", "down_proj"),
        (QWEN | {"model_type": "qwen3_moe"}, "layers.1.mlp.experts", "down_proj"),
    ],
    ids=["mixtral", "qwen2_moe", "qwen3_moe"],
)
def test_an_expert_is_swapped_alone(tmp_path, options, experts, down):
    models = pair(tmp_path, lambda weights: noisy(weights, f"model.{experts}.2.{down}.weight", size=0.5), **options)
    expected = whole_model_kl(models[0], models[1], {}, TEXT)
    sites = by_name(models[0])
    with swapper(*models, tmp_path, TEXT, torch.float32) as found:
        whole = found.kl((), into="candidate")
        assert whole.mean() == pytest.approx(expected.mean(), rel=0.02)
        assert np.corrcoef(whole, expected)[0, 1] > 0.995
        expert = found.kl([sites[f"{experts}.2"]])
        np.testing.assert_array_equal(expert, whole)
        assert found.kl([sites[f"{experts}.1"]]).max() == 0
        assert found.kl([sites[f"{experts}.2"]], mode=CONTROL).max() == 0


def test_of_another_inner_width_whole_layers_are_swapped_and_nothing_in_them(tmp_path):
    narrow = {"intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
    models = make_checkpoint(tmp_path / "wide", **HEADS), make_checkpoint(tmp_path / "narrow", seed=1, **narrow)
    found = differing_of(*models)
    assert [site.name for site in found if site.layer is not None] == ["layers.0", "layers.1", "layers.2"]
    with swapper(*models, tmp_path, TEXT) as made:
        np.testing.assert_array_equal(made.kl(found), made.kl((), into="candidate"))
        assert made.kl(found, into="candidate").max() == 0


def test_the_cost_is_what_is_run_again(models, tmp_path):
    sites = by_name(models[0])
    with swapper(*models, tmp_path, TEXT) as found:
        head = found.head_layers
        assert found.cost([sites["layers.0"]]) == pytest.approx((3 + 2 * head) / (3 + head))
        assert found.cost([sites["layers.2"]]) == pytest.approx((1 + 2 * head) / (3 + head))
        assert found.cost([sites["layers.2"], sites["layers.1"]]) == found.cost([sites["layers.1"]])
        assert found.cost([sites["lm_head"]]) == pytest.approx(2 * head / (3 + head))
