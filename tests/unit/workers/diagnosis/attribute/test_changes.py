"""Which parts differ, and evidence of errors that were made to have it."""

import pytest
import torch
from safetensors.torch import load_file

from app.contracts.report import Mean
from app.kinds.attribute.report import Evidence
from app.models.checkpoint import inspect
from tests.support.copies import edit_json
from tests.unit.workers.diagnosis.attribute.swapped import (
    HEADS,
    by_name,
    changed_copy,
    differing_of,
    noisy,
    pair,
    reads_of,
    subset,
    swapper,
    whole_model_kl,
)
from workers.diagnosis.attribute.cause import Found, cause_of
from workers.diagnosis.attribute.changes import Inputs, config_differences, evidence, noise_share
from workers.diagnosis.attribute.examination import possible

LARGE = {"hidden_size": 128, "intermediate_size": 256}
PREFIX = "model.layers.1.mlp."


def harm(weights):
    """One outlier channel in gate, one direction in up, most of down gone."""
    gate, up, down = (f"{PREFIX}{name}_proj.weight" for name in ("gate", "up", "down"))
    gated = weights[gate].float()
    gated[:, 7] += 5 * gated.std()
    weights[gate] = gated.to(torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    rows, columns = weights[up].shape
    thin = torch.randn(rows, 1, generator=generator) @ torch.randn(1, columns, generator=generator)
    weights[up] = (weights[up].float() + 0.3 * weights[up].float().std() * thin).to(torch.bfloat16)
    weights[down] = torch.zeros_like(weights[down])
    noisy(weights, "model.layers.0.self_attn.q_proj.weight")


@pytest.fixture(scope="module")
def models(tiny, tmp_path_factory):
    reference = tiny("llama", **HEADS, **LARGE)
    return reference, changed_copy(reference, tmp_path_factory.mktemp("models") / "candidate", harm)


@pytest.fixture
def opened(models, tmp_path):
    with swapper(*models, tmp_path, subset()) as found:
        yield found, reads_of(*models)


def test_exactly_the_parts_that_were_changed_differ(models):
    found = differing_of(*models)
    assert [site.name for site in found] == [
        "layers.0",
        "layers.0.self_attn.q_proj",
        "layers.0.self_attn.heads.0",
        "layers.0.self_attn.heads.1",
        "layers.1",
        "layers.1.mlp.down_proj",
        "layers.1.mlp.gate_proj",
        "layers.1.mlp.up_proj",
    ]


def test_evidence_tells_what_each_error_is_like(models, opened):
    found, reads = opened
    sites, inputs, candidate = by_name(models[0]), Inputs(found.reference), inspect(models[1])
    names = (*(f"layers.1.mlp.{name}_proj" for name in ("gate", "up", "down")), "layers.0.self_attn.q_proj")
    gate, up, down, query = (evidence(sites[name], reads, inputs, candidate) for name in names)
    assert gate.outlier_share == pytest.approx(1.0, abs=1e-3)
    assert up.outlier_share < 0.3
    assert up.low_rank_share > 0.95
    assert down.zeros == pytest.approx(1.0, abs=1e-3)
    assert down.change == pytest.approx(1.0)
    assert query.change == pytest.approx(0.2, rel=0.05)
    # by a full decomposition
    (name,) = sites[names[-1]].tensors
    weighted = (reads[1](name).float() - reads[0](name).float()) * inputs.of(0)[name].sqrt()
    values = torch.linalg.svdvals(weighted.double()).square()
    assert query.low_rank_share == pytest.approx(float(values[:16].sum() / values.sum()), rel=0.02)
    assert query.low_rank_share < 0.5


def test_isotropic_noise_of_a_small_module_is_not_of_low_rank(tiny, tmp_path):
    name = f"{PREFIX}up_proj.weight"
    reference = tiny("llama", **HEADS, hidden_size=64, intermediate_size=64)
    weights = load_file(reference / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    changed = {"noise": 0.01 * torch.randn(64, 64, generator=generator)}
    changed["few"] = 0.1 * changed["noise"] + 0.01 * torch.randn(64, 4, generator=generator) @ torch.randn(
        4, 64, generator=generator
    )
    site = by_name(reference)["layers.1.mlp.up_proj"]
    told = {}
    with swapper(reference, reference, tmp_path, subset()) as same:
        inputs = Inputs(same.reference)
        for kind, delta in changed.items():
            candidate = weights | {name: weights[name].float() + delta}
            told[kind] = evidence(site, (weights.__getitem__, candidate.__getitem__), inputs, inspect(reference))
    assert told["noise"].low_rank_share > 0.5
    assert told["noise"].low_rank_noise == pytest.approx(0.623, abs=0.001)
    unsure = Mean(mean=1.0, ci=(0.5, 2.0))
    nats = Mean(mean=0.1, ci=(0.08, 0.12))
    causes = {kind: cause_of(Found("module", "up_proj", nats, nats, unsure, one))[0] for kind, one in told.items()}
    assert causes == {"noise": "unclear", "few": "low_rank"}


@pytest.mark.parametrize("value", [1e30, float("inf"), float("nan")])
def test_of_an_error_whose_square_is_not_finite_no_share_is_told(models, opened, value):
    found, reads = opened
    site = by_name(models[0])["layers.0.self_attn.q_proj"]

    def spoilt(name):
        weight = reads[1](name).clone()
        weight[3, 5] = value
        return weight

    told = evidence(site, (reads[0], spoilt), Inputs(found.reference), inspect(models[1]))
    assert told == Evidence(change=None, zeros=0.0)


def test_configurations_differ_by_what_they_compute(tiny):
    ours, theirs = inspect(tiny("llama")), inspect(tiny("llama", rms_norm_eps=1e-3))
    assert config_differences(ours, ours) == ()
    assert "rms_norm_eps" in config_differences(ours, theirs)
    assert {site.kind for site in differing_of(ours.path, theirs.path)} == {"layer", "norm"}


@pytest.mark.parametrize(
    ("kind", "field"), [("gemma2", "final_logit_softcapping"), ("granite", "logits_scaling"), ("llama", "logit_scale")]
)
def test_what_is_done_with_logits_alone_is_the_heads_and_no_layers(tiny, kind, field):
    folders = tiny(kind), tiny(kind, **{field: 7.0})
    assert inspect(folders[0]).config.get(field) != inspect(folders[1]).config[field]
    assert [site.name for site in differing_of(*folders)] == ["lm_head"]


def test_a_temperature_beside_a_soft_cap_is_in_final_norm_and_head(tmp_path):
    """Each is put in alone; the norm and the head together are the whole temperature, by transformers' own logits."""

    def halve(weights):
        weights["model.norm.weight"] = (2 * (weights["model.norm.weight"].float() + 1) - 1).to(torch.bfloat16)

    reference, candidate = pair(tmp_path, halve, kind="gemma2", scale=16.0)
    edit_json(candidate / "config.json", final_logit_softcapping=60.0)
    found = differing_of(reference, candidate)
    assert [site.name for site in found] == ["norm", "lm_head"]
    text = subset(windows=2, length=16)
    with swapper(reference, candidate, tmp_path, text) as models:
        both = models.kl(found)
        alone = models.kl(found[:1])
    wanted = whole_model_kl(reference, candidate, load_file(candidate / "model.safetensors"), text)
    assert float(both.mean()) == pytest.approx(float(wanted.mean()), rel=0.05)
    assert float(abs(alone - both).max()) > 0


def test_a_head_of_its_own_beside_one_that_is_the_embedding_s_is_a_part_that_differs(tmp_path):
    def untie(weights):
        head = weights["model.embed_tokens.weight"].clone()
        head[: len(head) // 2] = 0
        weights["lm_head.weight"] = head

    folders = pair(tmp_path, untie, tie_word_embeddings=True)
    edit_json(folders[1] / "config.json", tie_word_embeddings=False)
    assert [inspect(folder).tied for folder in folders] == [True, False]
    for pair_of in (folders, folders[::-1]):
        (head,) = differing_of(*pair_of)
        assert head.name == "lm_head"
    with swapper(*folders, tmp_path / "scratch", subset()) as found:
        (head,) = differing_of(*folders)
        told = evidence(head, reads_of(*folders), Inputs(found.reference), inspect(folders[1]))
        assert told.zeros == pytest.approx(0.5, abs=0.01)
        assert possible(found, head)
        assert found.kl([head]).mean() == pytest.approx(found.kl((), into="candidate").mean())


def test_nothing_is_told_of_a_layer_that_the_candidate_has_not_whole(tiny, tmp_path):
    folders = tiny("qwen2"), tiny("llama")
    assert "model.layers.0.self_attn.q_proj.bias" in inspect(folders[0]).tensors.keys() - inspect(folders[1]).tensors
    (layer,) = (site for site in differing_of(*folders) if site.name == "layers.0")
    with swapper(folders[0], folders[0], tmp_path, subset()) as same:
        told = evidence(layer, reads_of(*folders), Inputs(same.reference), inspect(folders[1]))
    assert told == Evidence(change=None)


@pytest.mark.parametrize("shape", [(64, 64), (96, 96), (128, 128), (64, 576), (576, 192), (512, 512)])
def test_it_is_what_drawn_noise_holds(shape):
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    energy = torch.linalg.svdvals(drawn).square()
    assert noise_share(*shape, 16) == pytest.approx(float(energy[:16].sum() / energy.sum()), abs=0.01)
    assert noise_share(*shape, 16) == noise_share(*reversed(shape), 16)
    assert noise_share(16, 500, 16) == 1.0 > noise_share(17, 500, 16)
