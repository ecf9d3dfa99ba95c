"""A calibrate job from request to report, with a real engine on a tiny model."""

import contextlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode
from app.models.registry import load_registry
from app.settings import Settings
from tests.support.attempts import Context
from tests.support.blocks import corrections, hooked
from tests.support.refusals import refused
from tests.support.tiny_jobs import RTN3, Jobs, body, document, inline, validated
from workers.calibration import fits
from workers.calibration.profiles import ProfileStore
from workers.calibrators import storage
from workers.calibrators.blocks import Blocks, blocks_of
from workers.process.handler import JobCancelled
from workers.process.yielding import KEPT
from workers.text.tokenization import load_tokenizer

DOCUMENTS = [document(number, 60, "prose" if number % 2 else "code") for number in range(40)]


def request(**changes: Any) -> Any:
    asked = {"calibrators": ["temperature", "lowrank", "lowrank+confidence"], "own_tokens": 0}
    return validated(body("calibrate", [RTN3], DOCUMENTS) | asked | changes)


@pytest.fixture(scope="module")
def report(module_jobs: Jobs) -> Any:
    return module_jobs.run(request())


def test_three_disjoint_sets_hold_every_domain(report: Any) -> None:
    assert [part.name for part in report.sets] == ["fit", "choose", "test"]
    assert all(set(part.domains) == {"prose", "code"} for part in report.sets)
    assert sum(part.documents for part in report.sets) == len(DOCUMENTS)
    assert len({part.fingerprint for part in report.sets}) == 3
    assert report.tokens == report.sets[2].tokens
    assert report.documents == report.sets[2].documents


def test_every_number_can_be_had_again_from_the_values_of_the_test_tokens(report: Any, context: Context) -> None:
    raw, calibrated = (pq.read_table(context.output / f"{name}.parquet") for name in ("raw", "calibrated"))
    kl = {name: np.asarray(table["kl"]) for name, table in (("raw", raw), ("calibrated", calibrated))}
    assert report.raw.divergence.kl.mean == pytest.approx(kl["raw"].mean(), rel=1e-5)
    assert report.divergence.kl.mean == pytest.approx(kl["calibrated"].mean(), rel=1e-5)
    row = next(row for row in report.test.table if row.chosen)
    assert row.own.saved.mean == pytest.approx((kl["raw"] - kl["calibrated"]).mean(), rel=1e-3, abs=1e-7)
    domain = np.asarray(raw["domain"].to_pylist())
    for name, cell in row.domains.items():
        assert cell.saved.mean == pytest.approx(
            (kl["raw"] - kl["calibrated"])[domain == name].mean(), rel=1e-3, abs=1e-7
        )
    assert report.test.kl_high >= report.divergence.kl.mean
    effects = report.test.effects
    top1 = np.asarray(calibrated["top1_agree"]).mean() - np.asarray(raw["top1_agree"]).mean()
    assert effects.top1_agreement.change.mean == pytest.approx(top1, abs=1e-9)


def test_a_correction_that_helps_is_proven_and_its_profile_stored(
    report: Any, context: Context, settings: Settings
) -> None:
    assert report.test.passed, report.test.reasons
    assert report.served == report.profile
    store = ProfileStore(settings)
    profile = store.get(report.profile)
    assert profile.job == context.job_id
    assert profile.test == report.test
    assert profile.fit.candidate.recipe_fingerprint is not None
    assert {part.name for part in profile.fit.sets} == {"fit", "choose", "test"}
    store.load(report.profile, device="cpu", hidden_size=64, vocabulary=320)
    with refused(ErrorCode.PROFILE_MISMATCH):
        store.load(report.profile, device="cpu", hidden_size=65)


def test_phases_are_told_in_order_and_the_outcome_is_a_metric(context: Context) -> None:
    order = [phase for phase in context.phases if phase in {"text", *KEPT}]
    assert list(dict.fromkeys(order)) == ["text", "reference", "candidate", "fit", "choose", "test"]
    told = {name: value for name, value, _ in context.samples}
    assert told["calibrate_passed"] == 1
    assert 0 < told["calibrate_saved_ratio"] < 1


def test_a_killed_attempt_is_gone_on_with_and_ends_in_the_same_profile(
    report: Any, monkeypatch: pytest.MonkeyPatch, jobs: Jobs
) -> None:
    lost = jobs.stopped(request(), stop_in="test")
    (opened,) = lost.scratch.rglob("test-opened.json")
    seal = json.loads(opened.read_text())
    assert len(lost.kept("**/fit.json")) == 3

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a finished fit is not repeated")

    monkeypatch.setattr(fits, "fit", refuse)
    again = jobs.run(request())
    assert again.profile == report.profile
    assert "reference" not in jobs.context.phases, "hidden states are read, not computed"
    assert (again.test.opened_at, again.test.frozen) == (seal["at"], seal["frozen"])


def test_attempts_that_make_way_again_and_again_end_in_the_same_profile(report: Any, jobs: Jobs) -> None:
    """Each after so many looks at whether it should, in phases whose work is kept."""

    def makes_way(looks: int) -> Callable[[Context], bool]:
        left = iter(range(looks))
        return lambda context: bool(context.phases) and context.phases[-1] in KEPT and next(left, None) is None

    attempts, again = 0, None
    while again is None:
        attempts += 1
        with contextlib.suppress(JobCancelled):
            again = jobs.run(request(), stop=makes_way(40 + 10 * attempts))
    assert attempts > 2
    assert again.profile == report.profile
    assert again.test.table[0].own == report.test.table[0].own
    assert again.divergence == report.divergence
    left = [file.name for file in jobs.context.scratch.rglob("*.part")]
    assert not any(name.startswith(("temperature", "lowrank")) for name in left), "finished fits leave no parts"


def test_what_does_not_prove_itself_is_not_served_and_says_why(jobs: Jobs) -> None:
    """Nothing was done to the candidate, so nothing can be saved."""
    report = jobs.run(
        request(candidate={"model": "tiny"}, self_check=True, calibrators=["temperature"], metadata={"a": "b"})
    )
    assert not report.test.passed
    assert (report.served, report.severity) == ("identity", "none")
    assert any("together" in reason for reason in report.test.reasons)
    assert "Identity is served" in report.verdict
    assert any("is not served" in line for line in jobs.context.logs)


def test_a_domain_that_is_not_fitted_is_tested_apart(jobs: Jobs) -> None:
    report = jobs.run(request(fit_domains=["prose"], calibrators=["lowrank"]))
    assert set(report.sets[0].domains) == set(report.sets[1].domains) == {"prose"}
    row = report.test.table[0]
    assert row.other.tokens == row.domains["code"].tokens
    assert row.own.tokens == row.domains["prose"].tokens


def test_a_test_document_that_was_fitted_is_left_out(jobs: Jobs) -> None:
    tests = [*(document(number, 60, "letters") for number in range(100, 106)), DOCUMENTS[0] | {"id": "copy"}]
    report = jobs.run(request(test_text=inline(tests), calibrators=["temperature"]))
    assert report.sets[2].documents == 6
    assert any(warning.code == "used_before" for warning in report.warnings)


def test_too_few_documents_are_refused(jobs: Jobs) -> None:
    with refused(ErrorCode.INVALID_REQUEST):
        jobs.run(request(text=inline(DOCUMENTS[:1])))


@pytest.mark.parametrize("phase", ["fit", "choose"])
def test_an_attempt_that_is_stopped_leaves_the_test_sealed(phase: str, jobs: Jobs) -> None:
    assert not jobs.stopped(request(seed=7), stop_in=phase).kept("**/test-opened.json")


def test_corrections_after_each_block_are_proven_on_states_of_the_engine_that_has_them(
    jobs: Jobs, settings: Settings
) -> None:
    names = ["lowrank", "blocks", "blocks+token_bias"]
    report = jobs.run(request(calibrators=names, own_tokens=256, refine_steps=2))
    rows = {row.calibrator: row for row in report.test.table}
    assert list(rows) == names
    assert "sample" in jobs.context.phases
    assert rows["blocks"].own.saved.mean > rows["lowrank"].own.saved.mean > 0
    assert report.test.passed
    assert {"blocks", "refine", "corrected"} <= set(jobs.context.phases)
    assert any("refined block corrections are" in line for line in jobs.context.logs)
    stored = storage.load(ProfileStore(settings).folder(report.profile))
    (found,) = blocks_of(stored)
    table = pq.read_table(jobs.context.output / "calibrated.parquet").to_pandas()
    for name, kl_T in table.groupby("document")["kl"]:
        text = next(one["text"] for one in DOCUMENTS if one["id"] == name)
        assert kl_T.mean() == pytest.approx(kl_by_transformers(settings, text, found), rel=0.1)


def kl_by_transformers(settings: Settings, text: str, blocks: Blocks) -> float:
    """Mean KL of the 3-bit model with hooks that correct its stream, in float32; windows of 64 tokens."""
    (candidate,) = {file.parent for file in settings.home.glob("checkpoints/*/model.safetensors")}
    reference = load_registry(settings.models_file).resolve("tiny").checkpoint_path()
    models = [AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32) for path in (reference, candidate)]
    hooked(models[1], blocks)
    tokens = load_tokenizer(reference)(text, add_special_tokens=False).input_ids
    found = []
    for start in range(0, len(tokens), 64):
        window = torch.tensor([tokens[start : start + 64]])
        with torch.no_grad():
            log_p, log_q = (model(window).logits[0, :-1].log_softmax(1) for model in models)
        found.append((log_p.exp() * (log_p - log_q)).sum(1))
    return float(torch.cat(found).mean())


def test_corrections_after_each_block_that_do_harm_are_left_out_of_every_composition(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def harmful(*_: object, **__: object) -> Blocks:
        return corrections({0: 2, 1: 2, 2: 2}, seed=5)

    monkeypatch.setattr("workers.calibration.fitting.blocks.fit_blocks", harmful)
    report = jobs.run(request(calibrators=["temperature", "blocks", "blocks+temperature"]))
    rows = {row.calibrator: row for row in report.test.table}
    assert rows["blocks"].own.saved.mean == 0
    assert rows["blocks+temperature"].own == rows["temperature"].own
    assert any("blocks did not help" in line for line in jobs.context.logs)
