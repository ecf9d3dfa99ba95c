"""Many recipes against one reference, with a real engine on a tiny model."""

import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.kinds.sweep.request import SweepRequest
from app.locks import try_lock
from app.models.knobs import recipe_at
from tests.support.tiny_jobs import WORDS, Jobs, body, document, validated
from workers.measuring.points.attempt import PointsAttempt
from workers.measuring.points.runner import Setting
from workers.process.handler import JobCancelled

ROUNDED = {"type": "quantize.rtn", "bits": {"sweep": [8, 4, 3]}, "group_size": 32}
REQUEST = validated(body("sweep", [ROUNDED], [document(number) for number in range(8)]))


def settings_of(asked: SweepRequest) -> list[Setting]:
    values = asked.knobs[0].values
    return [Setting((value,), recipe_at(asked.candidate.recipe, asked.knobs, [value])) for value in values]


SETTINGS = settings_of(REQUEST)


def test_a_point_says_what_a_comparison_of_its_recipe_says(jobs: Jobs) -> None:
    starts = jobs.room.starts
    attempt = PointsAttempt(REQUEST, jobs.attempt("sweep"), jobs.room)
    with attempt.ground() as ground:
        records = attempt.runner(ground, total=3).measure(SETTINGS)
    assert jobs.room.starts - starts <= 1
    for setting, record in zip(SETTINGS, records, strict=True):
        alone = jobs.compared(REQUEST, setting.recipe, f"compare-{setting.values[0]}")
        assert record.divergence.kl.mean == pytest.approx(alone.divergence.kl.mean, rel=1e-9)
        assert record.divergence.kl.ci == pytest.approx(alone.divergence.kl.ci, rel=1e-9)
        assert record.perplexity.candidate == pytest.approx(alone.perplexity.candidate, rel=1e-9)
        assert record.severity == alone.severity
        assert sum(record.sums.kl) / sum(record.sums.tokens) == pytest.approx(record.divergence.kl.mean, rel=1e-9)


def test_beyond_the_reference_context_a_point_says_what_a_comparison_says(jobs: Jobs) -> None:
    turned = [{"type": "context.yarn", "factor": {"sweep": [2.0, 8.0]}}]
    asked = validated(body("sweep", turned, [document(number, 400) for number in range(3)]) | {"window": 300})
    attempt = PointsAttempt(asked, jobs.attempt("sweep"), jobs.room)
    with attempt.ground() as ground:
        assert ground.run.context == 256
        assert max(len(window.tokens) for window in ground.part.corpus.windows) == 300
        records = attempt.runner(ground, total=2).measure(settings_of(asked))
        floor = ground.run.floor.report
    for setting, record in zip(settings_of(asked), records, strict=True):
        alone = jobs.compared(asked, setting.recipe, f"compare-{setting.values[0]}")
        assert alone.provenance.protocol.reference_context == 256
        assert record.divergence.kl.mean == pytest.approx(alone.divergence.kl.mean, rel=1e-9)
        assert record.perplexity.candidate == pytest.approx(alone.perplexity.candidate, rel=1e-9)
        assert record.perplexity.reference == pytest.approx(alone.perplexity.reference, rel=1e-9)
        assert floor.kl.mean == pytest.approx(alone.noise_floor.kl.mean, rel=1e-9)


def test_an_attempt_after_a_stopped_one_measures_only_what_is_missing(jobs: Jobs) -> None:
    stopped = jobs.attempt(stop=lambda context: len(context.kept("points/*.json")) >= 2)
    attempt = PointsAttempt(REQUEST, stopped, jobs.room)
    with pytest.raises(JobCancelled), attempt.ground() as ground:
        attempt.runner(ground, total=3).measure(SETTINGS)
    kept = stopped.kept("points/*.json")
    assert len(kept) == 2
    again = PointsAttempt(REQUEST, jobs.attempt(), jobs.room)
    with again.ground() as ground:
        runner = again.runner(ground, total=3)
        records = runner.measure(SETTINGS)
    assert runner.resumed == 2
    assert all(record is not None and record.whole for record in records)
    assert kept.items() <= jobs.context.kept("points/*.json").items()


def test_an_attempt_after_the_calibration_file_was_changed_measures_its_points_again(
    jobs: Jobs, tmp_path: Path
) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    jobs.settings = jobs.settings.model_copy(update={"text_root": texts})
    looking = {"calibration": {"source": "file", "path": "fit.txt"}, "calibration_windows": 4, "calibration_window": 32}
    fitted = {"type": "quantize.gptq", "bits": {"sweep": [4, 3]}, "group_size": 32, **looking}
    asked = validated(body("sweep", [fitted], [document(number) for number in range(8)]))

    def measured(folder: str, some: tuple[str, ...]) -> tuple[int, list[float]]:
        (texts / "fit.txt").write_text(" ".join(np.random.default_rng(99).choice(some, 400)))
        attempt = PointsAttempt(asked, jobs.attempt(folder), jobs.room)
        with attempt.ground() as ground:
            runner = attempt.runner(ground, total=2)
            records = runner.measure(settings_of(asked))
        return runner.resumed, [one.divergence.kl.mean for one in records]

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


def test_a_point_that_another_process_has_is_left_to_it_and_taken_over_when_it_dies(jobs: Jobs) -> None:
    context = jobs.attempt()
    attempt = PointsAttempt(REQUEST, context, jobs.room)
    with attempt.ground() as ground:
        runner = attempt.runner(ground, total=3)
        spawn = multiprocessing.get_context("spawn")
        ready = spawn.Event()
        held_key = (str(context.scratch / "claims"), runner.key(SETTINGS[1]), ready)
        other = spawn.Process(target=_hold, args=held_key, daemon=True)
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
    assert json.loads(next(iter(context.kept("points/*.json"))).read_text())["refused"] == ""
