"""Recipes of trials are made as the candidate was, and what goes wrong in one is a refusal of that one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import fingerprint, inspect
from app.recipes.recipe import Recipe
from app.settings import Settings
from tests.support.attempts import Context
from tests.support.handlers import SECRET
from workers.measuring.recipes import Bench, RefusedError, tokens_per_second
from workers.measuring.sides import Side
from workers.measuring.subject import recipe_of
from workers.surgery.callbacks import room_enough

Tiny = Callable[..., Path]
MERGE = {"type": "merge.linear", "other": "sibling", "weight": 0.25}
RTN = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
REPAIR = {"type": "repair.lowrank", "rank": 4, "block_epochs": 0, "distill_steps": 0}


def bench(tiny: Tiny, home: Path, texts: Callable[..., Any], device: str = "cpu") -> Bench:
    info = inspect(tiny())
    return Bench(
        reference=Side("tiny", info, fingerprint(info.path), info.path),
        origin=info,
        dtype="bfloat16",
        window=64,
        texts=texts,
        others=lambda step: tiny(seed=1) if step.type == "merge.linear" else None,
        room=cast(
            "Any",
            SimpleNamespace(pool=SimpleNamespace(device=device, steps_device="cpu", make_room_for_steps=room_enough)),
        ),
        context=cast("Any", Context(Settings(home=home), home)),
    )


def failing(error: Exception) -> Callable[[Any], Any]:
    """A text that cannot be read."""

    def read(_: Any) -> Any:
        raise error

    return read


def no_text(words: str = "no text") -> Callable[[Any], Any]:
    return failing(HemostatError(ErrorCode.CALIBRATION_TOO_SHORT, words))


def test_a_trial_takes_the_other_models_that_the_candidate_took(tiny: Tiny, tmp_path: Path) -> None:
    with bench(tiny, tmp_path, no_text()).make(recipe_of([MERGE, RTN])) as modified:
        assert [kind for step in modified.manifest.steps for kind in step.types] == ["merge.linear", "quantize.rtn"]


def test_steps_compute_where_the_pool_says_and_not_where_engines_run(tiny: Tiny, tmp_path: Path) -> None:
    with bench(tiny, tmp_path, no_text(), device="nowhere").make(recipe_of([RTN])) as modified:
        assert [kind for step in modified.manifest.steps for kind in step.types] == ["quantize.rtn"]


def test_what_the_model_cannot_take_is_a_refusal_and_so_is_a_fault_whose_log_has_no_text(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RefusedError, match="no text"):
        bench(tiny, tmp_path, no_text()).make(recipe_of([RTN, REPAIR]))
    with pytest.raises(RefusedError, match="unforeseen"):
        bench(tiny, tmp_path, failing(ValueError(f"cannot digest {SECRET!r}"))).make(recipe_of([RTN, REPAIR]))
    assert "a treatment failed" in caplog.text and "ValueError" in caplog.text
    assert "river" not in caplog.text


def test_what_the_machine_lacks_ends_the_job(tiny: Tiny, tmp_path: Path) -> None:
    memory = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    gpu = RuntimeError("CUDA error: an illegal memory access was encountered")
    for error in (HemostatError(ErrorCode.DISK_FULL, "full"), memory, gpu):
        with pytest.raises(type(error)) as caught:
            bench(tiny, tmp_path, failing(error)).make(recipe_of([RTN, REPAIR]))
        assert caught.value is error


def notes(made: Bench, home: Path, recipe: Recipe) -> set[str]:
    """Names of what a trial has left of making a recipe."""
    nothing: Any = None
    with pytest.raises(RefusedError):
        made.trial(recipe, nothing, nothing, phase="trial", timed=False)
    return {file.name for file in (home / "partial" / "made").iterdir()}


def test_a_trial_that_was_refused_for_its_text_is_made_again_with_another_text(tiny: Tiny, tmp_path: Path) -> None:
    recipe = recipe_of([RTN, REPAIR])
    first = notes(bench(tiny, tmp_path, no_text()), tmp_path, recipe)
    assert notes(bench(tiny, tmp_path, no_text()), tmp_path, recipe) == first
    assert len(first) == 1
    both = notes(bench(tiny, tmp_path, no_text("little text")), tmp_path, recipe)
    assert first < both
    refused = {json.loads((tmp_path / "partial" / "made" / name).read_text())["refused"] for name in both}
    assert refused == {"no text", "little text"}


def test_what_a_trial_is_known_by_changes_with_the_origin_and_the_other_model(tiny: Tiny, tmp_path: Path) -> None:
    sibling = Path(shutil.copytree(tiny(seed=1), tmp_path / "sibling"))
    made = bench(tiny, tmp_path, no_text())
    made._others = lambda step: sibling if getattr(step, "type", "") == "merge.linear" else None
    merged, plain = recipe_of([MERGE, RTN]), recipe_of([RTN])
    before = made.plan(merged), made.plan(plain)
    shutil.copy(tiny(seed=2) / "model.safetensors", sibling / "model.safetensors")
    assert made.plan(merged) != before[0]
    assert made.plan(plain) == before[1]
    made._origin = inspect(tiny(seed=2))
    assert made.plan(plain) != before[1]


def test_speed_is_the_median_pass_with_the_slowest_and_the_fastest_and_not_the_first() -> None:
    passes: list[int] = []
    seconds = iter([9.0, 2.0, 4.0, 1.0])  # the first warms up
    now = [0.0]

    def score(windows: list[Any], **_: Any) -> list[None]:
        passes.append(sum(map(len, windows)))
        now[0] += next(seconds)
        return [None] * len(windows)

    engine: Any = SimpleNamespace(score=score)
    windows = [np.zeros(length, dtype=np.int32) for length in (100, 300, 300, 50)]
    speed = tokens_per_second(engine, windows, clock=lambda: now[0])
    assert passes == [600] * 4, "the longest windows, until there are enough tokens"
    assert speed == (300.0, 150.0, 600.0)
