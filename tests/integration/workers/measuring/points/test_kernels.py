"""What the kernels of packed points add, with real engines on a tiny model; a compare job is the oracle."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.kinds.compare.request import CompareRequest
from app.kinds.sweep.request import SweepRequest
from app.models.knobs import recipe_at
from app.settings import Settings
from tests.support.attempts import Context
from tests.support.processor import needs_avx512
from workers.diagnosis.compare.job import compare
from workers.diagnosis.sweep.job import sweep
from workers.engine.room import EngineRoom
from workers.measuring.points.attempt import PointsAttempt
from workers.measuring.points.kernels import DROPPED
from workers.measuring.points.runner import Setting
from workers.measuring.sides import checkpoint_store

Json = dict[str, Any]
WORDS = ("the", "lazy", "dog", "jumps", "over", "quick", "brown", "foxes", "a", "model", "that", "loses", "what", "it")
PACKED = {"type": "quantize.rtn", "bits": 4, "group_size": 32, "symmetric": True, "form": "packed"}
KNOB = {"step": 0, "field": "group_size", "values": [32, 64]}
# A kernel that rounds activations differs from its weights in bf16 on every processor; that of 4-bit weights need not.
PACKED8 = {
    "type": "quantize.smoothquant",
    "strength": 0.3,
    "form": "packed",
    "calibration_windows": 4,
    "calibration_window": 64,
}
STRENGTH = {"step": 0, "field": "strength", "values": [0.3, 0.7]}


def document(number: int) -> Json:
    rng = np.random.default_rng(number)
    return {"id": f"d{number}", "text": " ".join(rng.choice(WORDS, 60))}


def request(step: Json = PACKED, **changes: Any) -> SweepRequest:
    return SweepRequest.model_validate(
        {
            "kind": "sweep",
            "reference": {"model": "tiny"},
            "candidate": {"model": "tiny", "recipe": [step]},
            "knobs": [KNOB],
            "text": {"source": "inline", "documents": [document(number) for number in range(8)]},
            "window": 64,
        }
        | changes
    )


def settings_of(asked: SweepRequest) -> list[Setting]:
    return [
        Setting((value,), recipe_at(asked.candidate.recipe, asked.knobs, [value])) for value in asked.knobs[0].values
    ]


def test_each_packed_setting_has_the_kernel_term_of_a_comparison(
    settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    asked = request(PACKED8, knobs=[STRENGTH])
    context = Context(settings, tmp_path / "sweep")
    report = sweep(asked, context, room)
    points = sorted(report.points, key=lambda point: float(point.value))  # strengths stand by the damage measured
    assert [point.value for point in points] == [0.3, 0.7]
    assert context.phases.index("kernel_term") > context.phases.index("points")
    done = [step for step in context.steps if step[0] == "kernel_term"]
    assert done == sorted(done) and done[-1][1] == done[-1][2]
    for point, setting in zip(points, settings_of(asked), strict=True):
        body = asked.model_dump(exclude={"knobs", "budget", "bounds", "tasks"}) | {"kind": "compare"}
        told = CompareRequest.model_validate(body).model_copy(
            update={"candidate": asked.candidate.model_copy(update={"recipe": setting.recipe})}
        )
        alone = compare(told, Context(settings, tmp_path / f"compare-{point.value}"), room).kernel_term
        assert alone is not None and point.kernel_term is not None
        assert alone.kl.mean is not None and alone.kl.mean > 0
        assert point.kernel_term.scheme == alone.scheme == "w8a8"
        assert point.kernel_term.tokens == alone.tokens
        assert point.kernel_term.kl.mean == pytest.approx(alone.kl.mean, rel=1e-5)
        assert point.kernel_term.kl.ci == pytest.approx(alone.kl.ci, rel=1e-5)
        assert point.no_kernel_term == ""


def test_settings_on_the_reference_s_own_kernels_have_none(
    settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    asked = request({"type": "quantize.rtn", "bits": 4, "group_size": 32})
    attempt = PointsAttempt(asked, Context(settings, tmp_path), room)
    with attempt.ground() as ground:
        records = attempt.runner(ground, total=2).measure(settings_of(asked))
        kernels = attempt.kernels(ground, settings_of(asked), [record for record in records if record])
    assert [(kernel.term, kernel.missing) for kernel in kernels] == [(None, ""), (None, "")]


@needs_avx512
def test_a_checkpoint_that_was_dropped_is_not_made_twice_and_the_report_says_why(
    settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    asked = request()
    context = Context(settings, tmp_path)
    attempt = PointsAttempt(asked, context, room)
    with attempt.ground() as ground:
        records = attempt.runner(ground, total=2).measure(settings_of(asked))
        store = checkpoint_store(context)
        store.budget_bytes = 0
        store.evict()
        kernels = attempt.kernels(ground, settings_of(asked), [record for record in records if record])
        assert store.keys == ()
    assert [(kernel.term, kernel.missing) for kernel in kernels] == [(None, DROPPED), (None, DROPPED)]
