"""An attribute job from request to report, with a real engine on a tiny model whose damage is put where it is known."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from app.contracts.errors import ErrorCode
from app.kinds.attribute.report import AttributeReport
from app.kinds.compare.request import CompareRequest
from app.settings import Settings
from tests.integration.workers.diagnosis.mitigate.test_job import DOCUMENTS
from tests.support.attempts import Context
from tests.support.refusals import refused
from tests.support.second_device import second_device
from tests.support.tiny_jobs import Jobs, body, inline, validated
from tests.unit.workers.diagnosis.attribute.swapped import Weights, changed_copy
from workers.diagnosis.attribute import job

# Two bits in one module of the middle layer, seven everywhere else.
HURT = "layers.1.mlp.down_proj"
SPOILT = "layers.1.input_layernorm"
RECIPE = [
    {"type": "quantize.rtn", "bits": 7, "group_size": 32, "layers": [0, 2]},
    {"type": "quantize.rtn", "bits": 2, "group_size": 32, "layers": [1], "modules": ["down_proj"]},
]
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.fixture(scope="module")
def settings(
    tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory, home_of: Callable[..., Settings]
) -> Settings:
    models = tmp_path_factory.mktemp("models")
    reference = tiny("llama", **HEADS)

    def spoil(weights: Weights) -> None:
        # what follows takes it back: alone, its queries times its keys are beyond any number
        weights[f"model.{SPOILT}.weight"] *= 1e30
        for name in ("q_proj", "k_proj", "v_proj"):
            weights[f"model.layers.1.self_attn.{name}.weight"] /= 1e30

    spoilt = changed_copy(reference, models / "spoilt", spoil)
    wide = tiny("llama", **HEADS, hidden_size=96)
    return home_of({"tiny": reference, "spoilt": spoilt, "mixture": tiny("mixtral"), "wide": wide})


def request(**changes: Any) -> Any:
    return validated(body("attribute", RECIPE, DOCUMENTS) | {"tokens": 4096, "budget": 200, "top": 3} | changes)


@pytest.fixture(scope="module")
def report(module_jobs: Jobs) -> Any:
    return module_jobs.run(request())


def test_the_module_that_was_hurt_comes_first_and_explains_the_damage(report: Any) -> None:
    by_name = {site.name: site for site in report.sites}
    hurt = by_name[HURT]
    assert {report.sites[0].name, report.sites[1].name} == {HURT, "layers.1"}
    # nothing else of that layer was touched
    assert by_name["layers.1"].nats == hurt.nats
    assert hurt.share > 0.8
    # the layer gives way to the one module that does it
    assert report.explained.sites[0] == HURT
    assert report.explained.share.mean > 0.9
    assert HURT in report.verdict


def test_controls_are_exactly_zero_and_twins_cost_as_much_as_rounding_does(report: Any) -> None:
    looked = [site for site in report.sites if site.control is not None]
    assert len(looked) == 3
    assert all(site.control == 0 for site in looked)
    hurt = next(site for site in looked if site.name == HURT)
    # weights and text are random, so that the error of rounding points nowhere
    assert hurt.isotropic_ratio == pytest.approx(1.0, abs=0.4)
    assert hurt.restored.mean == pytest.approx(hurt.nats, rel=0.3)


def test_both_engines_agree_on_the_whole_candidate(report: Any) -> None:
    whole = report.whole
    assert whole.engine.mean == pytest.approx(whole.transformers.mean, rel=0.05)
    assert report.divergence.kl.mean == pytest.approx(whole.engine.mean, rel=0.1)


def test_layers_add_up_where_the_damage_sits_in_one(report: Any) -> None:
    additivity = report.additivity
    assert additivity.over == ("layers.0", "layers.1", "layers.2")
    assert additivity.ratio.mean == pytest.approx(1.0, abs=0.15)


def test_untouched_parts_are_counted_and_the_budget_is_kept(report: Any) -> None:
    search = report.search
    assert search.spent <= search.budget
    # layers 0 and 2: themselves, seven modules, two groups of heads; layer 1: itself and one module
    assert (search.considered, search.unchanged) == (22, 17)
    assert not any(site.name.startswith("layers.1.self_attn") for site in report.sites)


def test_the_treatment_is_a_recipe_that_a_comparison_takes(report: Any, context: Context) -> None:
    treatment = report.treatment
    assert treatment.recipe is not None, treatment.why
    kept = json.loads((context.output / "recipe.json").read_text())
    assert kept == [dict(step) for step in treatment.recipe]
    CompareRequest.model_validate(
        {"kind": "compare", "reference": {"model": "tiny"}, "candidate": {"model": "tiny", "recipe": kept}}
    )
    ranked = json.loads((context.output / "sites.json").read_text())
    assert [one["name"] for one in ranked] == [site.name for site in report.sites]


def test_parts_run_on_the_device_of_steps_after_room_was_made_there(
    report: Any, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed: list[int] = []
    parts = job._Attribute._parts

    def there(self: Any, found: Any) -> None:
        with monkeypatch.context() as patched, torch.compiler.set_stance("force_eager"), second_device() as device:
            patched.setattr(jobs.room.pool, "make_room", lambda size, what: needed.append(size))
            self._device = str(device)
            parts(self, found)

    monkeypatch.setattr(job._Attribute, "_parts", there)
    found = jobs.run(request(), "second device")
    assert len(needed) == 2, "for swaps, and for what goes on inside"
    assert min(needed) > 4 * 320 * 64 * 2
    assert [site.name for site in found.sites[:2]] == [site.name for site in report.sites[:2]]
    assert all(site.control == 0 for site in found.sites if site.control is not None)
    nats = {site.name: site.nats for site in report.sites}
    assert {site.name: site.nats for site in found.sites} == pytest.approx(nats, rel=0.05, abs=1e-4)
    assert found.internals.activations.cascade.mean == pytest.approx(
        report.internals.activations.cascade.mean, rel=1e-3
    )


def test_looking_into_the_first_parts_is_told_to_its_last_step(report: Any, context: Context) -> None:
    steps = context.told("look into parts")
    assert len(report.sites) and steps
    assert steps == [(done, len(steps)) for done in range(len(steps))]


def test_a_lost_attempt_loses_no_measurement(report: Any, jobs: Jobs) -> None:
    lost = jobs.stopped(request(internals=False), stop_in="look into parts")
    before = lost.kept("attribute-*/ledger/*")
    assert len(before) >= len(report.sites)
    again = jobs.run(request(internals=False))
    assert before.items() <= jobs.context.kept("attribute-*/ledger/*").items()
    assert [(site.name, site.nats) for site in again.sites] == [(site.name, site.nats) for site in report.sites]


def test_a_model_of_another_depth_is_told_by_its_gaps(jobs: Jobs) -> None:
    recipe = [{"type": "prune.layers", "layers": [1]}]
    found = jobs.run(request(candidate={"model": "tiny", "recipe": recipe}, tokens=1024))
    assert "3 and 2 layers" in found.not_swapped
    (gap,) = found.sites
    assert (gap.kind, gap.name, gap.cause, gap.control) == ("gap", "dropped layer 1", "removed", 0)
    assert gap.shown is (gap.ci[0] > 0)
    assert gap.share == pytest.approx(1.0, abs=0.05)


def test_without_internals_a_model_of_another_depth_is_still_told_by_its_gaps(jobs: Jobs) -> None:
    recipe = [{"type": "prune.layers", "layers": [1]}]
    asked = request(candidate={"model": "tiny", "recipe": recipe}, tokens=1024, internals=False)
    found = jobs.run(asked)
    (gap,) = found.sites
    assert (gap.kind, gap.name, gap.cause) == ("gap", "dropped layer 1", "removed")
    assert found.verdict.startswith("The worst gap is dropped layer 1, which alone costs 100")
    assert found.internals.attention is None
    assert found.internals.activations is None
    assert not any(warning.code == "other_configuration" for warning in found.warnings)


def test_one_document_has_no_interval_no_stability_and_a_warning(jobs: Jobs) -> None:
    recipe = [{"type": "prune.layers", "layers": [1]}]
    asked = request(
        candidate={"model": "tiny", "recipe": recipe}, text=inline(DOCUMENTS[:1]), tokens=64, internals=False
    )
    found = jobs.run(asked)
    (gap,) = found.sites
    assert (gap.ci, gap.share_ci, gap.shown) == (None, None, None)
    assert found.internals is not None and found.internals.alignment is not None
    block = found.internals.alignment
    assert {pair.stability for pair in block.pairs} == {hole.stability for hole in block.gaps} == {None}
    assert "not resampled, with 1 document" in gap.why
    assert "100 % of resamplings" not in gap.why
    assert any(warning.code in {"few_documents", "no_interval"} for warning in found.warnings)


def test_parts_are_not_swapped_by_number_where_the_recipe_numbers_the_layers_anew(jobs: Jobs) -> None:
    recipe = [{"type": "prune.layers", "layers": [0]}, {"type": "extend.duplicate", "layers": [1]}]
    found = jobs.run(request(candidate={"model": "tiny", "recipe": recipe}, tokens=1024))
    assert found.not_swapped.startswith("prune.layers and extend.duplicate number the layers again")
    assert found.not_swapped in found.verdict
    assert found.search is None
    assert all(site.kind == "gap" for site in found.sites)
    assert found.internals.alignment is not None


def test_kinds_that_do_not_differ_are_told_from_a_budget_that_does_not_reach(jobs: Jobs) -> None:
    asked = request(levels=["norm", "expert"], tokens=256, internals=False)
    found = jobs.run(asked)
    assert (found.search.considered, found.search.measured) == (0, 0)
    assert found.search.others == 22
    assert not any(warning.code.endswith("not_reached") for warning in found.warnings)


def test_of_some_layers_the_whole_models_damage_is_not_said_to_add_up(jobs: Jobs) -> None:
    found = jobs.run(request(layers=[0, 1], levels=["layer"], tokens=256, top=2, internals=False))
    assert found.verdict.startswith("The worst part is layers.")
    assert found.additivity is None


def test_a_part_whose_swap_is_finite_nowhere_is_the_worst(jobs: Jobs) -> None:
    asked = request(candidate={"model": "spoilt"}, tokens=256, internals=False)
    found = jobs.run(asked)
    assert [one.name for one in found.nowhere_finite] == [SPOILT]
    ranked = {site.name for site in found.sites}
    assert SPOILT not in ranked
    assert "layers.1" in ranked
    assert found.verdict.startswith(f"Alone in the reference, {SPOILT} leaves no finite logits")
    assert "The worst part of the others" in found.verdict
    assert found.search.measured == len(ranked) + 1
    assert any(warning.code == "nowhere_finite" for warning in found.warnings)
    assert not any(warning.code == "partly_finite" for warning in found.warnings)
    again = AttributeReport.model_validate_json(found.model_dump_json(by_alias=True))
    assert again.nowhere_finite == found.nowhere_finite


def test_of_a_mixture_experts_and_routers_are_parts(jobs: Jobs) -> None:
    """A router with noise in the middle layer, experts rounded to two bits in the last one."""
    recipe = [
        {"type": "moe.router", "noise": 1.0, "layers": [1]},
        {"type": "quantize.rtn", "bits": 2, "group_size": 32, "layers": [2]},
    ]
    asked = request(
        reference={"model": "mixture"}, candidate={"model": "mixture", "recipe": recipe}, tokens=512, top=24
    )
    found = jobs.run(asked)
    assert found.whole.engine.mean == pytest.approx(found.whole.transformers.mean, rel=0.05)
    by_name = {site.name: site for site in found.sites}
    experts = {name for name, site in by_name.items() if site.kind == "expert"}
    assert experts == {f"layers.2.block_sparse_moe.experts.{number}" for number in range(4)}
    assert all(by_name[name].nats > 0 for name in experts)
    router = by_name["layers.1.block_sparse_moe.gate"]
    # nothing else of that layer was touched
    assert by_name["layers.1"].nats == router.nats > 0
    assert {site.control for site in found.sites if site.control is not None} == {0.0}
    assert router.cause == "router"
    assert router.treatment.recipe is not None, router.treatment.why
    assert [step["type"] for step in router.treatment.recipe] == ["quantize.rtn"]
    assert json.loads((jobs.context.output / "sites.json").read_text())


def test_of_gaps_a_later_attempt_measures_nothing_again(jobs: Jobs) -> None:
    recipe = [{"type": "extend.duplicate", "layers": [1]}]
    asked = request(candidate={"model": "tiny", "recipe": recipe}, tokens=512, internals=False)
    found = jobs.run(asked)
    assert {site.kind for site in found.sites} == {"gap"}
    again = jobs.run(asked)
    assert not any(phase == "inside: gaps" for phase, *_ in jobs.context.steps)
    assert [(site.name, site.nats) for site in again.sites] == [(site.name, site.nats) for site in found.sites]


def test_a_model_of_another_hidden_size_is_refused_before_anything_is_scored(jobs: Jobs) -> None:
    with refused(
        ErrorCode.CHECKPOINT_UNSUPPORTED, "/candidate/model", match="hidden size is 96 and the reference's is 64"
    ):
        jobs.run(request(candidate={"model": "wide"}))
    assert "reference" not in {phase for phase, *_ in jobs.context.steps}
