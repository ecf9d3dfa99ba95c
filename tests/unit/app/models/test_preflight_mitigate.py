"""What is refused of a mitigate request before it is queued, and what it is estimated to take."""

import pytest
from pydantic import ValidationError

from app.contracts.errors import ErrorCode
from app.kinds.estimates import estimate
from app.kinds.mitigate.least_size import least_bytes
from app.kinds.mitigate.request import MitigateRequest
from app.kinds.preflight import check_request
from app.models.checkpoint import inspect
from app.models.pace import Pace
from tests.support.asked import DOCUMENT, rejection
from tests.support.checked import checked, recipe


@pytest.fixture
def registry(alone):
    return alone


def request(**changes):
    return MitigateRequest.model_validate(
        {
            "kind": "mitigate",
            "reference": {"model": "llama"},
            "candidate": {"model": "llama", "recipe": [{"type": "quantize.rtn", "bits": 3, "group_size": 32}]},
            "window": 64,
            "calibration_window": 64,
        }
        | changes
    )


def test_what_means_nothing_is_refused():
    for changes in (
        {"budget": {"bytes": 0}},
        {"budget": {"bits_per_weight": -1}},
        {"budget": {"added_latency": -0.1}},
        {"budget": {"size": 5}},
        {"treatments": []},
        {"treatments": ["repair.lowrnk"]},
        {"trials": 1},
        {"calibration_windows": 1},
    ):
        with pytest.raises(ValidationError):
            request(**changes)


def test_every_text_is_checked_before_the_job_is_queued(registry, settings):
    twice = {"source": "inline", "documents": [DOCUMENT, DOCUMENT]}
    for field in ("text", "test_text", "calibration"):
        error = rejection(request(**{field: twice}), registry, settings)
        assert (error.code, error.pointer) == (ErrorCode.INVALID_REQUEST, f"/{field}/documents/1/id")


def test_more_trials_are_estimated_to_take_longer_and_their_checkpoints_stay_within_the_budget(registry, settings):
    few, many = (estimate(request(trials=trials), registry, settings) for trials in (4, 40))
    assert many.seconds > few.seconds
    assert few.checkpoint_bytes < many.checkpoint_bytes <= settings.checkpoint_budget_bytes
    assert any("40 trials" in line for line in many.assumptions)
    assert (
        few.tokens
        == estimate(request(calibration={"source": "inline", "documents": [DOCUMENT]}), registry, settings).tokens
    )


@pytest.fixture
def seconds(registry, settings):
    def estimated(*treatments, **changes):
        asked = request(treatments=list(treatments), **changes)
        return estimate(asked, registry, settings, Pace(1.4, "a thousand times slower")).seconds / 1000

    return estimated


def test_repairs_that_are_trained_are_estimated_with_their_training(registry, seconds):
    """A third of the trials, blocks three times over the text and sixty steps of 1,024 tokens each."""
    info = inspect(registry.resolve("llama").checkpoint_path())

    trained = 3 * request().calibration_windows * 64 + 60 * 1024
    with_repair = seconds("repair.lowrank", "protect", trials=180) - seconds("protect", trials=180)
    assert with_repair == pytest.approx(60 * trained * info.parameters / 3e10, rel=0.01)


def test_pruning_by_gradients_is_estimated_with_its_training_where_it_stands_for_a_step(registry, seconds):
    """Longer than a repair: ten times over the text, and 200 steps of 512 tokens. Repair behind pruning is tried with
    what the reference writes, too: half as many windows as the text has."""
    info = inspect(registry.resolve("llama").checkpoint_path())

    pruned, rtn = (
        {"trials": 180, "candidate": {"model": "llama", "recipe": [step]}}
        for step in (
            {"type": "prune.magnitude", "sparsity": 0.5},
            {"type": "quantize.rtn", "bits": 4, "group_size": 32},
        )
    )
    text = request().calibration_windows * 64
    trained = 10 * text + 200 * 512
    more = seconds("prune.gradient", **pruned) - seconds("norm.tweak", **pruned)
    assert more == pytest.approx(60 * trained * info.parameters / 3e10, rel=0.01)
    both = seconds("prune.gradient", "repair.lowrank", **pruned) - seconds("prune.gradient", **pruned)
    assert both == pytest.approx(60 * text / 2 * info.parameters / 2.6e10, rel=0.01)
    alone = seconds("repair.lowrank", **pruned) - seconds("norm.tweak", **pruned)
    repaired = 3 * 1.5 * text + 60 * 1024
    assert alone == pytest.approx(60 * info.parameters * (repaired / 3e10 + text / 2 / 2.6e10), rel=0.01)
    assert seconds("prune.gradient", "norm.tweak", **rtn) == seconds("norm.tweak", **rtn)


def test_mixed_widths_are_estimated_with_what_they_measure_where_dynamic_scaling_stands_for_a_step(registry, seconds):
    """A quarter of the trials, four units of a layer at five widths, on two windows of 64 tokens; a third of
    them fits blocks three times."""
    info = inspect(registry.resolve("llama").checkpoint_path())

    plain = {"trials": 200, "candidate": {"model": "llama", "recipe": [{"type": "prune.magnitude", "sparsity": 0.5}]}}
    passes = 50 * 2 * 64 * 5 * 4 * (info.layers + 1) / 2
    with_dynamic = seconds("quantize.dynamic", "protect", trials=200) - seconds("protect", trials=200)
    fitted = 200 / 3 * 3 * request().calibration_windows * 64
    expected = info.parameters * (passes / 4.9e10 + fitted / 3e10)
    assert with_dynamic == pytest.approx(expected, rel=0.01)
    assert seconds("quantize.dynamic", "protect", **plain) == seconds("protect", **plain)


def test_a_budget_below_what_the_candidate_takes_is_refused_before_the_job_is_queued(registry, settings):
    """Of a candidate of other shapes: its own bytes and weights, not those that it was made from."""
    info = inspect(registry.resolve("llama").checkpoint_path())
    plain = {"candidate": {"model": "llama"}, "self_check": True}
    whole = sum(tensor.bytes for tensor in info.tensors.values())
    check_request(request(**plain, budget={"bytes": whole}), registry, settings)
    check_request(request(budget={"bytes": whole // 2}), registry, settings)
    assert rejection(request(**plain, budget={"bytes": whole // 2}), registry, settings).pointer == "/budget/bytes"
    text = {"calibration_windows": 2, "calibration_window": 32}
    for step in (
        {"type": "prune.layers", "count": 1} | text,
        {"type": "prune.channels", "ratio": 0.5} | text,
        {"type": "extend.duplicate", "layers": [1]},
        {"type": "lowrank.svd", "ratio": 0.3},
    ):
        asked, steps = {"model": "llama", "recipe": [step]}, recipe(step)
        least = least_bytes(info, steps)
        for name, limit in (("bytes", least), ("bits_per_weight", 8 * least / checked(info, step).parameters)):
            check_request(request(candidate=asked, budget={name: limit}), registry, settings)
            error = rejection(request(candidate=asked, budget={name: type(limit)(limit / 1.03)}), registry, settings)
            assert (error.code, error.pointer) == (ErrorCode.INVALID_REQUEST, f"/budget/{name}")
