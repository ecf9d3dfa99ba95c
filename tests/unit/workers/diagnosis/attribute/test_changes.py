"""Which parts differ, and evidence of errors that were made to have it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from app.contracts.report import Mean
from app.kinds.attribute.report import Evidence
from app.models.checkpoint import inspect
from tests.support.copies import edit_json
from tests.unit.workers.diagnosis.attribute.swapped import (
    HEADS,
    Weights,
    changed_copy,
    noisy,
    pair,
    subset,
    swapper,
    whole_model_kl,
)
from workers.diagnosis.attribute.cause import Found, cause_of
from workers.diagnosis.attribute.changes import Inputs, config_differences, differing, evidence, noise_share
from workers.diagnosis.attribute.controls import possible
from workers.diagnosis.attribute.sites import sites_of
from workers.diagnosis.attribute.swapping import Swapper
from workers.surgery.blockwise.skeleton import Read

LARGE = {"hidden_size": 128, "intermediate_size": 256}
PREFIX = "model.layers.1.mlp."


def harm(weights: Weights) -> None:
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
def models(tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    reference = tiny("llama", **HEADS, **LARGE)
    return reference, changed_copy(reference, tmp_path_factory.mktemp("models") / "candidate", harm)


@pytest.fixture
def opened(models: tuple[Path, Path], tmp_path: Path) -> Iterator[tuple[Swapper, tuple[Read, Read]]]:
    weights = [load_file(folder / "model.safetensors") for folder in models]
    with swapper(*models, tmp_path, subset()) as found:
        yield found, (weights[0].__getitem__, weights[1].__getitem__)


def test_exactly_the_parts_that_were_changed_differ(
    models: tuple[Path, Path], opened: tuple[Swapper, tuple[Read, Read]]
) -> None:
    ours, theirs = (inspect(folder) for folder in models)
    found = differing(sites_of(ours), ours, theirs, opened[1], lambda: None)
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


def test_evidence_tells_what_each_error_is_like(
    models: tuple[Path, Path], opened: tuple[Swapper, tuple[Read, Read]]
) -> None:
    found, reads = opened
    sites = {site.name: site for site in sites_of(inspect(models[0]))}
    inputs = Inputs(found.reference)
    gate = evidence(sites["layers.1.mlp.gate_proj"], reads, inputs, inspect(models[1]))
    up = evidence(sites["layers.1.mlp.up_proj"], reads, inputs, inspect(models[1]))
    down = evidence(sites["layers.1.mlp.down_proj"], reads, inputs, inspect(models[1]))
    query = evidence(sites["layers.0.self_attn.q_proj"], reads, inputs, inspect(models[1]))
    assert gate.outlier_share == pytest.approx(1.0, abs=1e-3)
    assert up.outlier_share is not None
    assert up.outlier_share < 0.3
    assert up.low_rank_share is not None
    assert up.low_rank_share > 0.95
    assert down.zeros == pytest.approx(1.0, abs=1e-3)
    assert down.change == pytest.approx(1.0)
    assert query.change == pytest.approx(0.2, rel=0.05)
    assert query.low_rank_share is not None
    assert query.low_rank_share < 0.5


def test_directions_are_those_of_a_full_decomposition(
    models: tuple[Path, Path], opened: tuple[Swapper, tuple[Read, Read]]
) -> None:
    found, reads = opened
    site = next(site for site in sites_of(inspect(models[0])) if site.name == "layers.0.self_attn.q_proj")
    name = site.tensors[0]
    weighted = (reads[1](name).float() - reads[0](name).float()) * Inputs(found.reference).of(0)[name].sqrt()
    values = torch.linalg.svdvals(weighted.double()).square()
    told = evidence(site, reads, Inputs(found.reference), inspect(models[1])).low_rank_share
    assert told == pytest.approx(float(values[:16].sum() / values.sum()), rel=0.02)


def test_isotropic_noise_of_a_small_module_is_not_of_low_rank(tiny: Callable[..., Path], tmp_path: Path) -> None:
    name = f"{PREFIX}up_proj.weight"
    reference = tiny("llama", **HEADS, hidden_size=64, intermediate_size=64)
    weights = load_file(reference / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    changed = {"noise": 0.01 * torch.randn(64, 64, generator=generator)}
    changed["few"] = 0.1 * changed["noise"] + 0.01 * torch.randn(64, 4, generator=generator) @ torch.randn(
        4, 64, generator=generator
    )
    info = inspect(reference)
    site = next(site for site in sites_of(info) if f"model.{site.name}.weight" == name)
    told = {}
    with swapper(reference, reference, tmp_path, subset()) as same:
        inputs = Inputs(same.reference)
        for kind, delta in changed.items():
            candidate = weights | {name: weights[name].float() + delta}
            told[kind] = evidence(site, (weights.__getitem__, candidate.__getitem__), inputs, info)
    assert told["noise"].low_rank_share is not None and told["noise"].low_rank_share > 0.5
    assert told["noise"].low_rank_noise == pytest.approx(0.623, abs=0.001)
    unsure = Mean(mean=1.0, ci=(0.5, 2.0))
    nats = Mean(mean=0.1, ci=(0.08, 0.12))
    causes = {kind: cause_of(Found("module", "up_proj", nats, nats, unsure, one))[0] for kind, one in told.items()}
    assert causes == {"noise": "unclear", "few": "low_rank"}


@pytest.mark.parametrize("value", [1e30, float("inf"), float("nan")])
def test_of_an_error_whose_square_is_not_finite_no_share_is_told(
    models: tuple[Path, Path], opened: tuple[Swapper, tuple[Read, Read]], value: float
) -> None:
    found, reads = opened
    site = next(site for site in sites_of(inspect(models[0])) if site.name == "layers.0.self_attn.q_proj")

    def spoilt(name: str) -> torch.Tensor:
        weight = reads[1](name).clone()
        weight[3, 5] = value
        return weight

    told = evidence(site, (reads[0], spoilt), Inputs(found.reference), inspect(models[1]))
    assert told == Evidence(change=None, zeros=0.0)


def test_configurations_differ_by_what_they_compute(tiny: Callable[..., Path]) -> None:
    ours, theirs = inspect(tiny("llama")), inspect(tiny("llama", rms_norm_eps=1e-3))
    assert config_differences(ours, ours) == ()
    assert "rms_norm_eps" in config_differences(ours, theirs)
    weights = load_file(ours.path / "model.safetensors")
    found = differing(sites_of(ours), ours, theirs, (weights.__getitem__, weights.__getitem__), lambda: None)
    assert {site.kind for site in found} == {"layer", "norm"}


@pytest.mark.parametrize(
    ("kind", "field"), [("gemma2", "final_logit_softcapping"), ("granite", "logits_scaling"), ("llama", "logit_scale")]
)
def test_what_is_done_with_logits_alone_is_the_heads_and_no_layers(
    tiny: Callable[..., Path], kind: str, field: str
) -> None:
    ours, theirs = inspect(tiny(kind)), inspect(tiny(kind, **{field: 7.0}))
    assert ours.config.get(field) != theirs.config[field]
    weights = load_file(ours.path / "model.safetensors")
    found = differing(sites_of(ours), ours, theirs, (weights.__getitem__, weights.__getitem__), lambda: None)
    assert [site.name for site in found] == ["lm_head"]


def test_a_temperature_beside_a_soft_cap_is_in_final_norm_and_head(tmp_path: Path) -> None:
    """Each is put in alone; the norm and the head together are the whole temperature, by transformers' own logits."""

    def halve(weights: Weights) -> None:
        weights["model.norm.weight"] = (2 * (weights["model.norm.weight"].float() + 1) - 1).to(torch.bfloat16)

    reference, candidate = pair(tmp_path, halve, kind="gemma2", scale=16.0)
    edit_json(candidate / "config.json", final_logit_softcapping=60.0)
    infos = [inspect(folder) for folder in (reference, candidate)]
    weights = [load_file(folder / "model.safetensors") for folder in (reference, candidate)]
    found = differing(sites_of(infos[0]), *infos, (weights[0].__getitem__, weights[1].__getitem__), lambda: None)
    assert [site.name for site in found] == ["norm", "lm_head"]
    text = subset(windows=2, length=16)
    with torch.compiler.set_stance("force_eager"), swapper(reference, candidate, tmp_path, text) as models:
        both = models.kl(found)
        alone = models.kl(found[:1])
    wanted = whole_model_kl(reference, candidate, weights[1], text)
    assert float(both.mean()) == pytest.approx(float(wanted.mean()), rel=0.05)
    assert float(abs(alone - both).max()) > 0


def test_a_head_of_its_own_beside_one_that_is_the_embedding_s_is_a_part_that_differs(tmp_path: Path) -> None:
    def untie(weights: Weights) -> None:
        head = weights["model.embed_tokens.weight"].clone()
        head[: len(head) // 2] = 0
        weights["lm_head.weight"] = head

    folders = pair(tmp_path, untie, tie_word_embeddings=True)
    config = json.loads((folders[1] / "config.json").read_text()) | {"tie_word_embeddings": False}
    (folders[1] / "config.json").write_text(json.dumps(config))
    ours, theirs = (inspect(folder) for folder in folders)
    assert (ours.tied, theirs.tied) == (True, False)
    weights = [load_file(folder / "model.safetensors") for folder in folders]
    for infos, reads in (
        ((ours, theirs), (weights[0].__getitem__, weights[1].__getitem__)),
        ((theirs, ours), (weights[1].__getitem__, weights[0].__getitem__)),
    ):
        (head,) = differing(sites_of(infos[0]), *infos, reads, lambda: None)
        assert head.name == "lm_head"
    with torch.compiler.set_stance("force_eager"), swapper(*folders, tmp_path / "scratch", subset()) as found:
        (head,) = differing(
            sites_of(ours), ours, theirs, (weights[0].__getitem__, weights[1].__getitem__), lambda: None
        )
        told = evidence(head, (weights[0].__getitem__, weights[1].__getitem__), Inputs(found.reference), theirs)
        assert told.zeros == pytest.approx(0.5, abs=0.01)
        assert possible(found, head)
        assert found.kl([head]).mean() == pytest.approx(found.kl((), into="candidate").mean())


def test_nothing_is_told_of_a_layer_that_the_candidate_has_not_whole(tiny: Callable[..., Path], tmp_path: Path) -> None:
    ours, theirs = inspect(tiny("qwen2")), inspect(tiny("llama"))
    assert "model.layers.0.self_attn.q_proj.bias" in ours.tensors.keys() - theirs.tensors.keys()
    weights = [load_file(info.path / "model.safetensors") for info in (ours, theirs)]
    reads = (weights[0].__getitem__, weights[1].__getitem__)
    found = {site.name: site for site in differing(sites_of(ours), ours, theirs, reads, lambda: None)}
    with swapper(ours.path, ours.path, tmp_path, subset()) as same:
        assert evidence(found["layers.0"], reads, Inputs(same.reference), theirs) == Evidence(change=None)


@pytest.mark.parametrize("shape", [(64, 64), (96, 96), (128, 128), (64, 576), (576, 192), (512, 512)])
def test_it_is_what_drawn_noise_holds(shape: tuple[int, int]) -> None:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    energy = torch.linalg.svdvals(drawn).square()
    assert noise_share(*shape, 16) == pytest.approx(float(energy[:16].sum() / energy.sum()), abs=0.01)
    assert noise_share(*shape, 16) == noise_share(*reversed(shape), 16)


def test_noise_of_few_directions_is_all_in_them() -> None:
    assert noise_share(16, 500, 16) == 1.0
    assert noise_share(17, 500, 16) < 1.0
