"""Errors against transformers' hidden states, their parts against layers run by hand, effects against whole models."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from app.kinds.attribute.blocks import Measured
from tests.support.copies import copier
from tests.support.internals import DOCUMENT_N, TOKENS_NL, at_borders, kl, run, whole
from tests.support.pruning import operate
from workers.diagnosis.attribute.activations import activation_errors, self_repair, sqnr
from workers.diagnosis.attribute.blocks import activations_block
from workers.diagnosis.attribute.matching import Matching, match
from workers.surgery.store import CheckpointStore

SAME = Matching(((0, 0), (1, 1), (2, 2)), (), 3.0)
RTN = {"type": "quantize.rtn", "bits": 3, "group_size": 32}


def states(folder):
    """(N, L, D) at every border, without the first token, in float64."""
    model = whole(folder)
    kept = []
    for layer in model.model.layers:
        layer.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    model.model.norm.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    run(model)
    return [one[:, 1:].double() for one in kept]


@pytest.fixture
def quantized(tiny, tmp_path):
    store = CheckpointStore(tmp_path / "store", 10**9)
    with (
        operate(tiny("llama"), store, RTN) as modified,
        at_borders(tiny("llama"), modified.path, scratch=tmp_path) as (reference, candidate),
    ):
        yield tiny("llama"), modified.path, reference, candidate


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-9)


def test_errors_at_borders_are_those_of_transformers_states(quantized):
    folder, other, reference, candidate = quantized
    found = activation_errors(reference, candidate, SAME, DOCUMENT_N)
    assert found.borders == ((0, 0), (1, 1), (2, 2), (3, 3))
    for border, (h, hat) in enumerate(zip(states(folder), states(other), strict=True)):
        error = hat - h
        close(found.relative_B.values()[border], float((error.norm(dim=-1) / h.norm(dim=-1)).mean()))
        close(found.cosine_B.values()[border], float(torch.cosine_similarity(h, hat, dim=-1).mean()))
        energy = float(error.square().sum() / h.square().sum())
        close(found.energy_B.values()[border], energy)
        if energy:
            assert sqnr(energy) == pytest.approx(-20 * np.log10(float(error.norm() / h.norm())))
        close(found.relative_B.top[0, border], float((error.norm(dim=-1) / h.norm(dim=-1))[:2].sum()))  # document 0


def test_the_error_that_leaves_a_layer_is_fresh_and_carried(quantized):
    folder, other, reference, candidate = quantized
    found = activation_errors(reference, candidate, SAME, DOCUMENT_N)
    ours, theirs = states(folder), states(other)
    fresh_total = 0.0
    for layer in range(3):
        model = whole(folder)  # the reference with this one layer the candidate's: its states behind it
        model.model.layers[layer] = whole(other).model.layers[layer]
        kept = []
        follower = model.model.norm if layer == 2 else model.model.layers[layer + 1]
        follower.register_forward_pre_hook(lambda _, args, kept=kept: kept.append(args[0]))
        run(model)
        fed = kept[0][:, 1:].double()
        fresh, entering = (fed - ours[layer + 1]).square().sum(), (theirs[layer] - ours[layer]).square().sum()
        fresh_total += float(fresh)
        close(found.fresh_S.values()[layer], float(fresh / ours[layer + 1].square().sum()))
        if layer:
            close(found.carried_S.values()[layer], float((theirs[layer + 1] - fed).square().sum() / entering))
            leaving = (theirs[layer + 1] - ours[layer + 1]).square().sum()
            close(found.grown_S.values()[layer], float(leaving / entering))
        else:
            assert np.isnan(found.carried_S.values()[0])  # no error enters: bits of the embedding are kept
    fresh_total += float((theirs[0] - ours[0]).square().sum())
    close(found.cascade.values(), float((theirs[3] - ours[3]).square().sum()) / fresh_total)


def test_final_effect_is_the_model_with_that_layer_and_direct_effect_skips_the_later_ones(quantized, tmp_path):
    folder, other, reference, candidate = quantized
    windows = [1, 4, 6]
    found = self_repair(reference, candidate, SAME, DOCUMENT_N, tmp_path, windows=windows)
    model = whole(folder)
    tokens = TOKENS_NL[windows]
    kept = []
    for follower in (*model.model.layers[1:], model.model.norm):
        follower.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    clean = run(model, tokens).logits
    for layer in range(3):
        changed = whole(folder)
        changed.model.layers[layer] = whole(other).model.layers[layer]
        seen = []
        follower = changed.model.norm if layer == 2 else changed.model.layers[layer + 1]
        follower.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        final = float(kl(clean, run(changed, tokens).logits).mean())
        with torch.no_grad():
            skipped = model.lm_head(nn.Module.__call__(model.model.norm, kept[2] + seen[0] - kept[layer]))
        direct = float(kl(clean, skipped).mean())
        kept[:] = kept[:3]  # the norm's hook has seen that too
        assert float(found.final_S.values()[layer]) == pytest.approx(final, rel=2e-3)
        assert float(found.direct_S.values()[layer]) == pytest.approx(direct, rel=2e-3)
        assert float(found.repaired_S.values()[layer]) == pytest.approx(1 - final / direct, rel=1e-2, abs=2e-3)
    assert float(found.repaired_S.values()[2]) == pytest.approx(0, abs=1e-6)  # behind the last layer is nothing


def test_a_model_has_no_error_against_itself(tiny, tmp_path):
    with at_borders(tiny("llama"), scratch=tmp_path) as (borders,):
        found = activation_errors(borders, borders, SAME, DOCUMENT_N)
        repair = self_repair(borders, borders, SAME, DOCUMENT_N, tmp_path, windows=[0, 3])
    for sums in (found.relative_B, found.energy_B, found.fresh_S, repair.direct_S, repair.final_S):
        assert not sums.top.any()
    np.testing.assert_allclose(found.cosine_B.values(), 1, rtol=1e-12)
    assert np.isnan(found.outlier_share_B.values()).all()
    assert found.outlier_share_B.shape == (4,)
    assert np.isnan(found.cascade.values())


def test_a_gap_is_a_step_with_its_own_fresh_error(tiny, tmp_path):
    store = CheckpointStore(tmp_path / "store", 10**9)
    folder = tiny("llama")
    with (
        operate(folder, store, {"type": "prune.layers", "layers": [1]}) as modified,
        at_borders(folder, modified.path, scratch=tmp_path) as (reference, candidate),
    ):
        found = activation_errors(reference, candidate, match(np.array([[1.0, 0], [0, 0], [0, 1]])), DOCUMENT_N)
    assert [step.gap for step in found.steps] == [False, True, False]
    assert found.borders == ((0, 0), (1, 1), (2, 1), (3, 2))
    h = states(folder)
    skipped = (h[1] - h[2]).square().sum() / h[2].square().sum()  # nothing was done where the reference has a layer
    close(found.fresh_S.values(), [0, float(skipped), 0])
    assert float(found.cascade.values()) == pytest.approx(
        float(found.grown_S.values()[2]), rel=1e-9
    )  # one fresh error, then one layer that handles it


def outliers(found, border):
    return [one.channel for one in found.outliers_B[border]]


def test_a_channel_far_larger_than_the_others_is_told(tiny, tmp_path):
    copy = copier(tiny, tmp_path)
    folder = copy("llama")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"][:, 5] *= 50
    tensors["model.embed_tokens.weight"][:, 9] *= 20
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    other = copy("llama", name="other")
    tensors["model.embed_tokens.weight"][:, 9] *= 1.5
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    with at_borders(folder, other, scratch=tmp_path) as (reference, candidate):
        found = activation_errors(reference, candidate, SAME, DOCUMENT_N)
    assert outliers(found, 0) == [5, 9]
    assert [one.error_share for one in found.outliers_B[0]] == pytest.approx([0, 1])
    assert found.outlier_share_B.values()[0] == pytest.approx(1)
    assert found.outliers_B[0][0].ratio == pytest.approx(50, rel=0.25)
    for border, (h, hat) in enumerate(zip(states(folder), states(other), strict=True)):
        error_ND = (hat - h).square().sum(1)
        close(found.outlier_share_B.top[0, border], float(error_ND[:2, outliers(found, border)].sum()))  # document 0
        close(found.outlier_share_B.bottom[0, border], float(error_ND[:2].sum()))
    block = activations_block(found, Measured(windows=len(DOCUMENT_N), tokens=1, documents=1), seed=0)
    told, expected = block.borders[1], found.outlier_share_B.means(seed=0, support=(0.0, 1.0))[1]
    assert told.outlier_share_ci[0] < told.outlier_share < told.outlier_share_ci[1]
    assert (told.outlier_share, told.outlier_share_ci) == (expected.mean, expected.ci)
