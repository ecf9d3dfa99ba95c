"""Many recipes against one reference, with a real engine on a tiny model."""

import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.kinds.compare.request import CompareRequest
from app.kinds.sweep.request import SweepRequest
from app.locks import try_lock
from app.models.knobs import recipe_at
from app.settings import Settings
from tests.support.attempts import Context
from workers.diagnosis.compare.job import compare
from workers.engine.room import EngineRoom
from workers.measuring.points.attempt import PointsAttempt
from workers.measuring.points.record import losses_of
from workers.measuring.points.runner import Setting
from workers.process.handler import JobCancelled

Json = dict[str, Any]
WORDS = ("the", "lazy", "dog", "jumps", "over", "quick", "brown", "foxes", "a", "model", "that", "loses", "what", "it")
STEP = {"type": "quantize.rtn", "bits": 8, "group_size": 32}
KNOB = {"step": 0, "field": "bits", "values": [8, 4, 3]}


def document(number: int) -> Json:
    rng = np.random.default_rng(number)
    return {"id": f"d{number}", "text": " ".join(rng.choice(WORDS, 60))}


TEXT = {"source": "inline", "documents": [document(number) for number in range(8)]}
REQUEST = SweepRequest.model_validate(
    {
        "kind": "sweep",
        "reference": {"model": "tiny"},
        "candidate": {"model": "tiny", "recipe": [STEP]},
        "knobs": [KNOB],
        "text": TEXT,
        "window": 64,
    }
)
SETTINGS = [Setting((bits,), recipe_at(REQUEST.candidate.recipe, REQUEST.knobs, [bits])) for bits in (8, 4, 3)]


def test_a_point_says_what_a_comparison_of_its_recipe_says(
    settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    context = Context(settings, tmp_path / "sweep")
    attempt = PointsAttempt(REQUEST, context, room)
    starts = room.starts
    with attempt.ground() as ground:
        records = attempt.runner(ground, total=3).measure(SETTINGS)
        documents = ground.window_documents
    assert room.starts - starts <= 1
    for setting, record in zip(SETTINGS, records, strict=True):
        assert record is not None and record.divergence is not None and record.perplexity is not None
        body = REQUEST.model_dump(exclude={"knobs", "budget", "bounds", "tasks"}) | {"kind": "compare"}
        told = CompareRequest.model_validate(body).model_copy(
            update={"candidate": REQUEST.candidate.model_copy(update={"recipe": setting.recipe})}
        )
        alone = compare(told, Context(settings, tmp_path / f"compare-{setting.values[0]}"), room)
        assert record.divergence.kl.mean == pytest.approx(alone.divergence.kl.mean, rel=1e-9)
        assert record.divergence.kl.ci == pytest.approx(alone.divergence.kl.ci, rel=1e-9)
        assert record.perplexity.candidate == pytest.approx(alone.perplexity.candidate, rel=1e-9)
        assert record.severity == alone.severity
        assert record.sums is not None
        assert sum(record.sums.kl) / sum(record.sums.tokens) == pytest.approx(record.divergence.kl.mean, rel=1e-9)
    whole = [record for record in records if record is not None]
    losses = losses_of(whole, documents, 8, "perplexity")
    assert np.exp(losses.logs()) == pytest.approx(
        [record.perplexity.candidate for record in whole if record.perplexity], rel=1e-9
    )


def test_beyond_the_reference_context_a_point_says_what_a_comparison_says(
    settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    documents = [
        {"id": f"long{number}", "text": " ".join(np.random.default_rng(number).choice(WORDS, 400))}
        for number in range(3)
    ]
    request = REQUEST.model_copy(update={"window": 300}).model_dump(mode="json") | {
        "candidate": {"model": "tiny", "recipe": [{"type": "context.yarn", "factor": 2.0}]},
        "knobs": [{"step": 0, "field": "factor", "values": [2.0, 8.0]}],
        "text": {"source": "inline", "documents": documents},
    }
    asked = SweepRequest.model_validate(request)
    turned = [Setting((factor,), recipe_at(asked.candidate.recipe, asked.knobs, [factor])) for factor in (2.0, 8.0)]
    attempt = PointsAttempt(asked, Context(settings, tmp_path / "sweep"), room)
    with attempt.ground() as ground:
        assert ground.run.context == 256
        assert max(len(window.tokens) for window in ground.part.corpus.windows) == 300
        records = attempt.runner(ground, total=2).measure(turned)
        floor = ground.run.floor.report
    for setting, record in zip(turned, records, strict=True):
        assert record is not None and record.divergence is not None and record.perplexity is not None
        body = asked.model_dump(exclude={"knobs", "budget", "bounds", "tasks"}) | {"kind": "compare"}
        told = CompareRequest.model_validate(body).model_copy(
            update={"candidate": asked.candidate.model_copy(update={"recipe": setting.recipe})}
        )
        alone = compare(told, Context(settings, tmp_path / f"compare-{setting.values[0]}"), room)
        assert alone.provenance.protocol.reference_context == 256
        assert record.divergence.kl.mean == pytest.approx(alone.divergence.kl.mean, rel=1e-9)
        assert record.perplexity.candidate == pytest.approx(alone.perplexity.candidate, rel=1e-9)
        assert record.perplexity.reference == pytest.approx(alone.perplexity.reference, rel=1e-9)
        assert floor.kl.mean == pytest.approx(alone.noise_floor.kl.mean, rel=1e-9)


def test_an_attempt_after_a_stopped_one_measures_only_what_is_missing(
    settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    folder = tmp_path / "job"
    stopped = Context(settings, folder, stop_after_points=2)
    attempt = PointsAttempt(REQUEST, stopped, room)
    with pytest.raises(JobCancelled), attempt.ground() as ground:
        attempt.runner(ground, total=3).measure(SETTINGS)
    files = {file.name: file.read_bytes() for file in (folder / "partial" / "points").glob("*.json")}
    assert len(files) == 2
    again = PointsAttempt(REQUEST, Context(settings, folder), room)
    with again.ground() as ground:
        runner = again.runner(ground, total=3)
        records = runner.measure(SETTINGS)
    assert runner.resumed == 2
    assert all(record is not None and record.whole for record in records)
    for name, content in files.items():
        assert (folder / "partial" / "points" / name).read_bytes() == content


def test_an_attempt_after_the_calibration_file_was_changed_measures_its_points_again(
    settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    reading = settings.model_copy(update={"text_root": texts})
    step = {
        "type": "quantize.gptq",
        "bits": 3,
        "group_size": 32,
        "calibration": {"source": "file", "path": "fit.txt"},
        "calibration_windows": 4,
        "calibration_window": 32,
    }
    body = REQUEST.model_dump(mode="json", exclude={"knobs"}) | {"knobs": [KNOB | {"values": [4, 3]}]}
    asked = SweepRequest.model_validate(body | {"candidate": {"model": "tiny", "recipe": [step]}})
    turned = [Setting((bits,), recipe_at(asked.candidate.recipe, asked.knobs, [bits])) for bits in (4, 3)]

    def measured(folder: str, words: tuple[str, ...]) -> tuple[int, list[float | None]]:
        (texts / "fit.txt").write_text(" ".join(np.random.default_rng(99).choice(words, 400)))
        attempt = PointsAttempt(asked, Context(reading, tmp_path / folder), room)
        with attempt.ground() as ground:
            runner = attempt.runner(ground, total=2)
            records = runner.measure(turned)
        found = [one.divergence.kl.mean for one in records if one is not None and one.divergence is not None]
        return runner.resumed, found

    first = measured("job", WORDS[:7])
    again = measured("job", WORDS[:7])
    changed = measured("job", WORDS[7:])
    assert (first[0], again[0], changed[0]) == (0, 2, 0)
    assert again[1] == first[1]
    # what a job that never saw the first text finds
    assert changed[1] == measured("fresh", WORDS[7:])[1]
    assert changed[1] != first[1]


def _hold(folder: str, key: str, ready: Any) -> None:
    lock = try_lock(Path(folder) / key, exclusive=True)
    assert lock is not None
    ready.set()
    time.sleep(600)


def test_a_point_that_another_process_has_is_left_to_it_and_taken_over_when_it_dies(
    settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    context = Context(settings, tmp_path / "job")
    attempt = PointsAttempt(REQUEST, context, room)
    with attempt.ground() as ground:
        runner = attempt.runner(ground, total=3)
        spawn = multiprocessing.get_context("spawn")
        ready = spawn.Event()
        other = spawn.Process(
            target=_hold, args=(str(context.scratch / "claims"), runner.key(SETTINGS[1]), ready), daemon=True
        )
        other.start()
        try:
            assert ready.wait(120)
            first, held, last = runner.measure(SETTINGS, wait=False)
            assert first is not None and held is None and last is not None
        finally:
            other.kill()
            other.join()
        found = runner.measure(SETTINGS)
    assert all(record is not None and record.whole for record in found)
    assert json.loads(next((context.scratch / "points").glob("*.json")).read_text())["refused"] == ""
