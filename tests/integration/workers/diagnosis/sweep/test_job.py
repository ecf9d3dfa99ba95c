"""A sweep job from request to report, with a real engine on a tiny model."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.sweep.report import Setting, SweepReport
from app.settings import Settings
from tests.support.attempts import Context
from tests.support.tiny import make_tokenizer
from tests.support.tiny_jobs import Jobs, Json, body, document, inline, validated
from workers.analysis.threshold.answer import fit_threshold
from workers.analysis.threshold.curve import Curve
from workers.analysis.threshold.request import parse_request
from workers.diagnosis.sweep.job import help_sweep

DOCUMENTS = [document(number) for number in range(8)]
SPARSITY = {"sweep": {"from": 0.1, "to": 0.9, "points": 9}}


@pytest.fixture(scope="module")
def settings(tiny: Callable[..., Path], home_of: Callable[..., Settings]) -> Settings:
    return home_of({"tiny": tiny("llama"), "capped": tiny("gemma2")})


def request(step: Json, **changes: Any) -> Any:
    return validated(body("sweep", [step], DOCUMENTS) | changes)


@pytest.fixture(scope="module")
def swept(module_jobs: Jobs) -> tuple[SweepReport, Context]:
    starts = module_jobs.room.starts
    report = module_jobs.run(request({"type": "prune.magnitude", "sparsity": SPARSITY}))
    assert module_jobs.room.starts - starts <= 1
    return report, module_jobs.context


def test_every_value_is_a_point_from_weak_to_strong(swept: tuple[SweepReport, Context]) -> None:
    report, context = swept
    assert [point.value for point in report.points] == pytest.approx(np.linspace(0.1, 0.9, 9))
    assert [point.s for point in report.points] == [point.value for point in report.points]
    kl = [point.divergence.kl.mean or 0 for point in report.points if point.divergence is not None]
    assert len(kl) == 9 and kl[0] < kl[3] < kl[8]
    assert report.severity == report.points[-1].severity
    steps = [(done, total) for phase, done, total in context.steps if phase == "points"]
    assert steps[-1][0] == steps[-1][1] and steps == sorted(steps)
    assert SweepReport.model_validate_json(report.model_dump_json()) == report


def test_the_thresholds_are_those_of_the_fit_to_the_reported_points(swept: tuple[SweepReport, Context]) -> None:
    report, _ = swept
    s = [point.s or 0.0 for point in report.points]
    for threshold, values in (
        (report.threshold, [p.perplexity.candidate or 0.0 for p in report.points if p.perplexity]),
        (report.threshold_kl, [p.divergence.kl.mean or 0.0 for p in report.points if p.divergence]),
    ):
        assert threshold is not None
        alone = fit_threshold(Curve.of(s, values))
        assert threshold.s0 == pytest.approx(alone.fit.s0, rel=1e-3)
        assert threshold.log_sse == pytest.approx(alone.fit.log_sse, rel=1e-3, abs=1e-6)
        assert threshold.interval.resampled == "documents"
        assert {rival.form for rival in threshold.rivals} == {
            "power_law",
            "exponential",
            "line",
            "logistic",
            "broken_line",
            "power_law_then_exponential_over_dense",
        }


def test_the_limits_lie_where_the_points_say(swept: tuple[SweepReport, Context]) -> None:
    report, _ = swept
    assert report.reference_perplexity is not None
    rises = [
        math.log((point.perplexity.candidate or 0.0) / report.reference_perplexity)
        for point in report.points
        if point.perplexity
    ]
    limit = report.near_lossless
    assert limit is not None and limit.limit == pytest.approx(math.log(7.657 / 6.157))
    within = [rise < limit.limit for rise in rises]
    first = within.index(False) if False in within else len(within)
    assert limit.largest == (Setting(value=report.points[first - 1].value) if first else None)
    mild = report.largest_mild
    assert mild is not None
    uppers = [point.excess_kl.ci[1] for point in report.points if point.excess_kl and point.excess_kl.ci]
    good = [upper < 0.05 for upper in uppers]
    first = good.index(False) if False in good else len(good)
    assert mild.largest == (Setting(value=report.points[first - 1].value) if first else None)


def test_the_curve_can_be_fitted_alone(swept: tuple[SweepReport, Context]) -> None:
    report, context = swept
    curve = json.loads((context.output / "curve.json").read_text())
    assert curve["dense"] == report.reference_perplexity
    assert len(curve["points"]) == 9
    taken = parse_request((context.output / "curve.json").read_text())
    assert report.threshold is not None and len(taken.curve) == report.threshold.points


def test_a_stopped_sweep_goes_on_and_finds_the_same(swept: tuple[SweepReport, Context], jobs: Jobs) -> None:
    asked = request({"type": "prune.magnitude", "sparsity": SPARSITY})
    lost = jobs.stopped(asked, stop=lambda context: len(context.kept("points/*.json")) >= 4)
    assert len(lost.kept("points/*.json")) == 4
    report = jobs.run(asked)
    assert [point.divergence for point in report.points] == [point.divergence for point in swept[0].points]
    assert report.provenance.resumed_windows == 4 * report.windows


def test_a_helper_measures_what_nobody_has_where_it_scores_alike(
    swept: tuple[SweepReport, Context], jobs: Jobs
) -> None:
    asked = request({"type": "prune.magnitude", "sparsity": SPARSITY})
    help_sweep(asked, jobs.attempt("job"), jobs.room)
    assert len(jobs.context.kept("points/*.json")) == 9
    report = jobs.run(asked, "job")
    assert [point.divergence for point in report.points] == [point.divergence for point in swept[0].points]
    # Nobody has scored this text as this engine would: whoever has the job could not use what is measured.
    other = request(
        {"type": "prune.magnitude", "sparsity": SPARSITY},
        text=inline([document(number) for number in range(20, 26)]),
    )
    help_sweep(other, jobs.attempt("other"), jobs.room)
    assert not jobs.context.kept("points")


def test_a_budget_is_kept_and_spent_between_the_ends(jobs: Jobs) -> None:
    step = {"type": "prune.magnitude", "sparsity": {"sweep": {"from": 0.1, "to": 0.9, "points": 17}}}
    report = jobs.run(request(step, budget=8))
    assert len(report.points) == 8 and len(report.knob.values) == 17
    assert report.points[0].value == 0.1 and report.points[-1].value == 0.9


def test_a_knob_without_a_share_gets_the_answers_without_a_form(jobs: Jobs) -> None:
    report = jobs.run(request({"type": "norm.scale", "factor": {"sweep": [1.01, 1.1, 1.5, 2.5]}}))
    assert report.threshold is None and "no share" in report.no_threshold
    assert report.largest_mild is not None and report.near_lossless is not None
    assert report.knob.axis == "value" and report.knob.share is None
    assert not (jobs.context.output / "curve.json").exists()


def test_settings_that_remove_the_same_share_stand_by_what_they_lose(jobs: Jobs) -> None:
    found = []
    for number, asked in enumerate((["1:4", "2:4", "4:8"], ["4:8", "2:4", "1:4"])):
        step = {"type": "prune.magnitude", "pattern": {"sweep": asked}}
        report = jobs.run(request(step), str(number))
        assert [point.s for point in report.points] == [0.5, 0.5, 0.75] and report.knob.order == "share"
        uppers = [point.excess_kl.ci[1] for point in report.points if point.excess_kl and point.excess_kl.ci]
        assert len(uppers) == 3 and uppers[0] < uppers[1]
        assert any(warning.code == "shared_shares" for warning in report.warnings)
        found.append(([point.value for point in report.points], report.largest_mild, report.near_lossless))
    assert found[0] == found[1]
    step = {"type": "prune.magnitude", "pattern": {"sweep": ["2:4", "4:8"]}}
    alone = jobs.run(request(step, budget=2), "alone")
    assert (alone.knob.order, alone.knob.axis) == ("unknown", "order")
    assert [point.value for point in alone.points] == found[0][0][:2]


def test_a_knob_that_is_harmless_in_the_middle_is_judged_by_the_distance_from_there(jobs: Jobs) -> None:
    step = {"type": "norm.scale", "factor": {"sweep": [0.2, 0.99, 1.01, 4.0]}}
    report = jobs.run(request(step))
    assert (report.knob.order, report.knob.neutral) == ("around", 1.0)
    assert [point.value for point in report.points] == [1.01, 0.99, 4.0, 0.2]
    uppers = [point.excess_kl.ci[1] for point in report.points if point.excess_kl and point.excess_kl.ci]
    assert uppers[0] < uppers[2] and uppers[1] < uppers[3]
    good = [upper < 0.05 for upper in uppers]
    first = good.index(False) if False in good else len(good)
    assert report.largest_mild is not None
    assert report.largest_mild.largest == (Setting(value=report.points[first - 1].value) if first else None)


def tempered(folder: Path, temperatures: list[float]) -> dict[float, tuple[float, float]]:
    """T → (mean KL(p‖p_T), perplexity at T) over the windows of `DOCUMENTS`, in float64 from transformers' logits."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64), make_tokenizer()
    rows, following = [], []
    for one in DOCUMENTS:
        ids = torch.tensor(tokenizer(one["text"], add_special_tokens=False).input_ids)
        for window_L in ids.split(64):
            with torch.no_grad():
                rows.append(model(window_L[None]).logits[0, :-1].double())
            following.append(window_L[1:])
    logits_TV, next_T1 = torch.cat(rows), torch.cat(following)[:, None]
    log_p_TV, found = logits_TV.log_softmax(-1), {}
    for temperature in temperatures:
        log_q_TV = (logits_TV / temperature).log_softmax(-1)
        kl = float((log_p_TV.exp() * (log_p_TV - log_q_TV)).sum(-1).mean())
        found[temperature] = kl, math.exp(-float(log_q_TV.gather(1, next_T1).mean()))
    return found


@pytest.mark.parametrize(("alias", "kind", "starts"), [("tiny", "llama", 1), ("capped", "gemma2", 5)])
def test_a_temperature_is_swept_on_both_sides_of_one(
    tiny: Callable[..., Path], alias: str, kind: str, starts: int, jobs: Jobs
) -> None:
    """Where a soft cap stands in the configuration each temperature has another one, and an engine of its own."""
    values = [0.5, 0.8, 1.0, 1.25, 2.0]
    step = {"type": "decode.temperature", "temperature": {"sweep": values}}
    before = jobs.room.starts
    models = {"reference": {"model": alias}, "candidate": {"model": alias, "recipe": [step]}}
    report = jobs.run(request(step, **models))
    assert jobs.room.starts - before <= starts
    assert (report.knob.order, report.knob.neutral, report.knob.share) == ("around", 1.0, None)
    assert report.threshold is None and "no share" in report.no_threshold
    assert report.largest_mild is not None and report.knob.axis == "order"
    assert [point.value for point in report.points] == [1.0, 0.8, 1.25, 0.5, 2.0]
    oracle = tempered(tiny(kind), values)
    for point in report.points:
        assert point.divergence is not None and point.perplexity is not None
        kl, perplexity = oracle[point.value]
        assert point.divergence.kl.mean == pytest.approx(kl, rel=0.05, abs=1e-6)
        assert point.perplexity.candidate == pytest.approx(perplexity, rel=0.03)
    assert report.points[0].divergence is not None and report.points[0].divergence.kl.mean == 0.0


def test_a_context_is_swept_beyond_that_of_the_reference(jobs: Jobs) -> None:
    long = [document(number, 400) for number in range(2)]
    report = jobs.run(
        request(
            {"type": "context.linear", "factor": {"sweep": [4.0, 2.0]}},
            text={"source": "inline", "documents": long},
            window=320,
        )
    )
    assert [point.value for point in report.points] == [2.0, 4.0] and report.knob.order == "rising"
    protocol = report.provenance.protocol
    assert (protocol.window, protocol.reference_context) == (320, 256)
    assert any(
        warning.code == "longer_than_reference" and warning.facts["tokens"] == 256 for warning in report.warnings
    )
    assert [one.facts for one in report.not_tested if one.code == "long_context"] == [{"tokens": 319}]


def test_values_that_the_model_cannot_take_are_told_and_all_of_them_end_the_job(jobs: Jobs) -> None:
    report = jobs.run(
        request({"type": "lowrank.svd", "rank": {"sweep": [4, 16, 40]}, "modules": ["q_proj", "k_proj"]}), "some"
    )
    assert [bool(point.refused) for point in report.points].count(True) == 1
    with pytest.raises(HemostatError) as refused:
        jobs.run(request({"type": "lowrank.svd", "rank": {"sweep": [400, 500]}}), "all")
    assert refused.value.code in {ErrorCode.RECIPE_NOT_APPLICABLE}
