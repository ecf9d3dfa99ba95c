"""A mitigate job from request to report, with a real engine on a tiny model."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from app.contracts.errors import ErrorCode
from app.kinds.compare.request import CompareRequest
from app.models.checkpoint import inspect
from app.settings import Settings
from tests.support.attempts import Context
from tests.support.refusals import refused
from tests.support.tiny_jobs import RTN3, WORDS, Jobs, Json, body, document, inline, validated
from workers.engine.scoring import ScoringEngine
from workers.measuring import recipes

WOUND = [RTN3]
# Bytes that a tiny model without a recipe keeps, of 263,040.
WHOLE = {"bytes": 300_000}


DOCUMENTS = [document(number, 50, "prose" if number % 2 else "code") for number in range(30)]
FITTED = [document(number, 50, "fitted") for number in range(100, 112)]
SHORT = inline([{"id": "short", "text": "too short"}])


@pytest.fixture(scope="module")
def settings(tiny: Callable[..., Path], home_of: Callable[..., Settings]) -> Settings:
    others = {"other": tiny("llama", seed=1), "qwen2": tiny("qwen2"), "gemma2": tiny("gemma2")}
    return home_of({"tiny": tiny("llama")} | others)


def request(**changes: Any) -> Any:
    asked: Json = {
        "calibration": inline(FITTED),
        "calibration_windows": 8,
        "calibration_window": 64,
        "treatments": ["protect", "repair.lowrank", "quantize.dynamic", "calibration"],
        "budget": {"bytes": 125_000},
        "trials": 6,
    }
    return validated(body("mitigate", WOUND, DOCUMENTS) | asked | changes)


@pytest.fixture(scope="module")
def report(module_jobs: Jobs) -> Any:
    return module_jobs.run(request())


def test_something_helps_within_the_budget(report: Any, context: Context) -> None:
    assert report.helped, report.verdict
    chosen = [point for point in report.front if point.recommended]
    assert len(chosen) == 1
    assert chosen[0].recipe == report.recommended
    assert all(point.bytes <= 125_000 and point.within_budget for point in report.front)
    assert [point.bytes for point in report.front] == sorted(point.bytes for point in report.front)
    assert [point.treatments for point in report.front if not point.treatments] == [()]
    assert all(point.tokens_per_second > 0 for point in report.front)
    assert report.saved.ci[0] > 0
    assert len(report.trials) <= 6
    assert {trial.rung for trial in report.trials} == {"cheap", "full"}
    assert any(line.startswith("trial 1 of 6") for line in context.logs)
    assert {"diagnose", "search", "trial", "test"} <= set(context.phases)


def test_the_sets_share_no_document(report: Any) -> None:
    assert [(part.name, part.documents) for part in report.sets] == [("fit", 12), ("choose", 12), ("test", 18)]
    assert len({part.fingerprint for part in report.sets}) == 3
    assert set(report.sets[0].domains) == {"fitted"}
    assert report.tokens == report.sets[2].tokens


def test_the_wound_is_measured_by_restoring_each_part(report: Any, context: Context) -> None:
    assert report.damage.how == "restored"
    assert sorted(part.layers for part in report.damage.parts) == [(0,), (1,), (2,)]
    assert sum(part.share or 0 for part in report.damage.parts) == pytest.approx(1)
    assert all(part.saved is not None and (part.saved.mean or 0) > 0 for part in report.damage.parts)
    assert not (context.scratch / "restored").exists()
    assert {total for _, total in context.told("diagnose")} == {3}, "its steps are parts, not windows of text"


def test_every_number_can_be_had_again_from_the_values_of_the_test_tokens(report: Any, context: Context) -> None:
    before, after = (
        np.asarray(pq.read_table(context.output / f"{name}.parquet")["kl"]) for name in ("candidate", "treated")
    )
    assert report.raw.divergence.kl.mean == pytest.approx(before.mean(), rel=1e-5)
    assert report.divergence.kl.mean == pytest.approx(after.mean(), rel=1e-5)
    assert report.saved.mean == pytest.approx((before - after).mean(), rel=1e-4)


def test_the_recipe_is_ready_for_compare_which_finds_the_same(report: Any, context: Context, jobs: Jobs) -> None:
    body = json.loads((context.output / "compare.json").read_text())
    assert body["candidate"]["recipe"] == json.loads((context.output / "recipe.json").read_text())
    tested = {*pq.read_table(context.output / "treated.parquet")["document"].to_pylist()}
    body["text"] = {"source": "inline", "documents": [one for one in DOCUMENTS if one["id"] in tested]}
    found = jobs.run(CompareRequest.model_validate(body))
    assert found.divergence.kl.mean == pytest.approx(report.divergence.kl.mean, rel=1e-4)
    chosen = next(point for point in report.front if point.recommended)
    assert found.provenance.candidate.weights_fingerprint == chosen.weights_fingerprint
    assert found.provenance.candidate.bytes == chosen.bytes


def test_the_card_tells_what_was_done_and_how_to_make_it(report: Any, context: Context) -> None:
    card = (context.output / "README.md").read_text()
    assert card.startswith("---\nbase_model: ")
    assert report.verdict in card
    assert "--recipe @recipe.json" in card
    assert WORDS[1] not in card.split(), "no text of documents"


def test_a_killed_attempt_is_gone_on_with_and_measures_no_trial_again(
    report: Any, monkeypatch: pytest.MonkeyPatch, jobs: Jobs
) -> None:
    lost = jobs.stopped(request(), stop_in="test")
    seal = json.loads((lost.scratch / "test-opened.json").read_text())
    real = recipes.divergence_of

    def only_the_test(*args: Any, phase: str, **rest: Any) -> Any:
        assert phase == "test", f"{phase} was measured already"
        return real(*args, phase=phase, **rest)

    monkeypatch.setattr(recipes, "divergence_of", only_the_test)
    again = jobs.run(request())
    assert (again.seal.opened_at, again.seal.frozen) == (seal["at"], seal["frozen"])
    assert again.recommended is not None
    assert [trial.treatments for trial in again.trials if trial.rung == "cheap"] == [
        trial.treatments for trial in report.trials if trial.rung == "cheap"
    ]


def test_no_model_reads_a_window_of_the_test_before_it_is_opened(monkeypatch: pytest.MonkeyPatch, jobs: Jobs) -> None:
    """Whatever is scored: speed is measured, and damage looked for, on other windows too."""
    read: dict[bool, set[bytes]] = {False: set(), True: set()}
    real = ScoringEngine.score

    def score(self: ScoringEngine, windows: Any, **rest: Any) -> Any:
        opened = (jobs.context.scratch / "test-opened.json").exists()
        read[opened] |= {np.asarray(window, dtype=np.int32).tobytes() for window in windows}
        return real(self, windows, **rest)

    monkeypatch.setattr(ScoringEngine, "score", score)
    report = jobs.run(request(seed=5, treatments=["protect"], trials=2))
    assert report.trials
    choose, test = (sum(part.tokens for part in report.sets if part.name == name) for name in ("choose", "test"))
    for opened, tokens in ((False, choose), (True, test)):
        # the first token of a window is given and not scored
        assert sum(len(window) // 4 - 1 for window in read[opened]) == tokens
    assert not read[False] & read[True]


def test_a_repair_leaves_its_adapter_and_the_checkpoint_where_it_is_asked_for(jobs: Jobs) -> None:
    report = jobs.run(request(treatments=["repair.lowrank"], trials=2, export="checkpoint", budget={"bytes": 200_000}))
    assert report.helped, report.verdict
    names = {file.name for file in jobs.context.output.iterdir()}
    assert {"adapter.zip", "model.safetensors", "config.json", "README.md"} <= names
    inspect(jobs.context.output)  # what is fetched into one folder is the checkpoint


def of(kind: str, recipe: list[Json]) -> Json:
    return {"reference": {"model": kind}, "candidate": {"model": kind, "recipe": recipe}}


@pytest.mark.parametrize("kind", ["qwen2", "gemma2"])
def test_other_architectures_are_treated_and_give_an_adapter_too(kind: str, jobs: Jobs) -> None:
    asked = request(
        **of(kind, WOUND),
        treatments=["repair.lowrank", "norm.tweak"],
        budget={"bytes": 200_000},
        trials=8,
        export="checkpoint",
    )
    report = jobs.run(asked)
    assert report.helped, report.verdict
    assert report.damage.how == "restored"
    assert {trial.rung for trial in report.trials} == {"cheap", "full"}
    assert not [trial.reason for trial in report.trials if trial.outcome == "not_applicable"]
    assert any(step["type"] == "repair.lowrank" for step in report.recommended or ())
    with zipfile.ZipFile(jobs.context.output / "adapter.zip") as packed:
        assert "adapter/adapter_config.json" in packed.namelist()


@pytest.mark.parametrize("kind", ["qwen2", "gemma2"])
@pytest.mark.parametrize(
    ("treatment", "wound", "step"),
    [
        ("protect", WOUND, "quantize.rtn"),
        ("quantize.dynamic", WOUND, "quantize.dynamic"),
        ("prune.gradient", [{"type": "prune.wanda", "sparsity": 0.5}], "prune.gradient"),
    ],
)
def test_what_stands_in_a_steps_place_is_tried_on_other_architectures_too(
    kind: str, treatment: str, wound: list[Json], step: str, jobs: Jobs
) -> None:
    report = jobs.run(request(**of(kind, wound), treatments=[treatment], budget={"bytes": 400_000}, trials=2))
    assert {trial.rung for trial in report.trials} == {"cheap", "full"}
    for trial in report.trials:
        assert trial.outcome != "not_applicable", trial.reason
        assert [one.name for one in trial.treatments] == [treatment]
        assert step in {one["type"] for one in trial.recipe}
        assert trial.saved is not None


def test_nothing_to_treat_is_said(jobs: Jobs) -> None:
    report = jobs.run(request(candidate={"model": "tiny"}, self_check=True, budget=WHOLE))
    assert (report.recommended, report.trials, report.severity) == (None, (), "none")
    assert report.answer == "no_damage"
    assert not (jobs.context.output / "recipe.json").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "the candidate itself takes "),
        ({"treatments": ["repair.lowrank"]}, "the smallest of the allowed treatments, repair.lowrank rank=4"),
    ],
)
def test_a_budget_that_no_treatment_can_keep_is_refused_before_a_model_runs(
    report: Any, changes: Json, told: str, jobs: Jobs
) -> None:
    """Also of a recipe whose bytes are known only once it is made; the least is what the finished job counted."""
    candidate = report.candidate_bytes
    budget = {"bytes": int(candidate / 1.03) if not changes else int(candidate * 1.001)}
    with refused(ErrorCode.INVALID_REQUEST, "/budget/bytes") as caught:
        jobs.run(request(**(changes | {"budget": budget})))
    assert told in caught.value.detail
    assert changes or f"{candidate:,}" in caught.value.detail
    assert not {"reference", "engine", "candidate"} & set(jobs.context.phases)


def test_what_cannot_be_tried_says_why(jobs: Jobs) -> None:
    """Another model's weights: no recipe, so nothing whose steps could be replaced."""
    tried = ["quantize.dynamic", "prune.gradient", "protect"]
    report = jobs.run(request(candidate={"model": "other"}, treatments=tried, budget=WHOLE))
    assert report.answer == "nothing_tried"
    assert {one.treatment for one in report.unhelpful} == set(tried)
    assert report.severity == report.raw_severity != "none"


def test_a_document_that_treatments_look_at_is_refused(jobs: Jobs) -> None:
    fitted = [*FITTED, DOCUMENTS[3] | {"id": "copy"}]
    with refused(ErrorCode.CALIBRATION_OVERLAP, "/text"):
        jobs.run(request(calibration=inline(fitted)))


def test_a_text_that_no_treatment_reads_may_be_too_short_for_its_windows(jobs: Jobs) -> None:
    asked = request(calibration=SHORT, calibration_window=4096, treatments=["protect", "calibration"])
    jobs.stopped(asked, stop_in="candidate")


@pytest.mark.parametrize(
    ("changes", "code", "pointer"),
    [
        ({"text": inline(DOCUMENTS[:1])}, ErrorCode.INVALID_REQUEST, "/text"),
        ({"calibration": SHORT}, ErrorCode.CALIBRATION_TOO_SHORT, "/calibration"),
    ],
)
def test_too_little_text_is_refused(changes: Json, code: ErrorCode, pointer: str, jobs: Jobs) -> None:
    with refused(code, pointer):
        jobs.run(request(**changes))


@pytest.mark.parametrize("phase", ["diagnose", "trial"])
def test_an_attempt_that_is_stopped_leaves_the_test_sealed(phase: str, jobs: Jobs) -> None:
    assert not jobs.stopped(request(seed=7), stop_in=phase).kept("**/test-opened.json")
