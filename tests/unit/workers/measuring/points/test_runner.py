"""What a point is known by: all that decides its values, by content, and nothing else."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.contracts.request import Thresholds
from app.models.checkpoint import fingerprint, inspect
from app.recipes.recipe import Recipe
from app.settings import Settings
from tests.support.attempts import Context
from workers.measuring.calibration_text import loader_without_sampler
from workers.measuring.points.runner import PointRunner, Setting
from workers.measuring.recipes import Bench
from workers.measuring.sides import Side
from workers.measuring.subject import recipe_of
from workers.surgery.callbacks import room_enough

Tiny = Callable[..., Path]
RTN = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
MERGE = {"type": "merge.linear", "other": "partner", "weight": 0.25}
ADAPTER = {"type": "adapter.lora", "adapter": "adapter"}
GPTQ = {
    "type": "quantize.gptq",
    "bits": 4,
    "group_size": 32,
    "calibration": {"source": "file", "path": "fit.txt"},
    "calibration_windows": 2,
    "calibration_window": 16,
}


@dataclass
class Job:
    """A job's folder, and what its recipes read beside the model."""

    folder: Path
    model: Path
    partner: Path

    def key(self, recipe: Recipe) -> str:
        """As an attempt that begins now names the point."""
        info = inspect(self.model)
        side = Side("tiny", info, fingerprint(info.path), info.path)
        settings = Settings(home=self.folder, text_root=self.folder / "texts")
        context = cast("Any", Context(settings, self.folder / "job"))
        bench = Bench(
            reference=side,
            origin=info,
            dtype="bfloat16",
            window=64,
            texts=loader_without_sampler(settings, info.path),
            others=lambda step: {
                "merge.linear": self.partner,
                "adapter.lora": self.folder / "adapter",
            }.get(getattr(step, "type", "")),
            room=cast(
                "Any", SimpleNamespace(pool=SimpleNamespace(steps_device="cpu", make_room_for_steps=room_enough))
            ),
            context=context,
        )
        ground = SimpleNamespace(
            reference=side,
            origin_weights=side.weights,
            run=SimpleNamespace(scored=SimpleNamespace(engine=SimpleNamespace(identity="engine"))),
            part=SimpleNamespace(corpus=SimpleNamespace(fingerprint="corpus")),
        )
        runner = PointRunner(cast("Any", ground), bench, context, cast("Any", None), thresholds=Thresholds(), seed=0)
        return runner.key(Setting((), recipe))

    def write(self, text: str) -> None:
        """The calibration file."""
        (self.folder / "texts").mkdir(exist_ok=True)
        (self.folder / "texts" / "fit.txt").write_text(text)


@pytest.fixture
def job(tiny: Tiny, tmp_path: Path) -> Job:
    made = Job(tmp_path, tiny(), Path(shutil.copytree(tiny(seed=1), tmp_path / "partner")))
    made.write("the quick brown fox jumps over the lazy dog " * 20)
    return made


def change_weights(file: Path) -> None:
    weights = load_file(file)
    name = min(weights)
    save_file(weights | {name: weights[name] + 1}, file, metadata={"format": "pt"})


def adapter(job: Job) -> Path:
    folder = job.folder / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": 2}))
    save_file({"a": torch.zeros(2)}, folder / "adapter_model.safetensors")
    return folder / "adapter_model.safetensors"


def test_the_key_changes_with_the_content_of_what_its_recipe_reads_and_of_nothing_else(job: Job) -> None:
    file = adapter(job)
    changes: dict[str, tuple[list[dict[str, Any]], Callable[[], None]]] = {
        "calibration text": ([GPTQ], lambda: job.write("a model that loses what it has had " * 20)),
        "partner of a merge": ([MERGE, RTN], lambda: change_weights(job.partner / "model.safetensors")),
        "adapter": ([ADAPTER], lambda: change_weights(file)),
    }
    plain = job.key(recipe_of([RTN]))
    for name, (steps, change) in changes.items():
        before = job.key(recipe_of(steps))
        change()
        assert job.key(recipe_of(steps)) != before, name
        assert job.key(recipe_of([RTN])) == plain, name


def test_a_text_that_is_too_short_gives_another_key_than_one_that_has_grown(job: Job) -> None:
    recipe = recipe_of([GPTQ])
    whole = job.key(recipe)
    job.write("a fox")
    short = job.key(recipe)
    assert short != whole
    assert job.key(recipe) == short
    assert job.key(recipe_of([GPTQ | {"bits": 3}])) != short


def test_the_key_changes_with_the_model_and_the_recipe(job: Job, tiny: Tiny) -> None:
    keys = [job.key(recipe_of([RTN])), job.key(recipe_of([RTN | {"bits": 3}]))]
    job.model = tiny(seed=2)
    keys.append(job.key(recipe_of([RTN])))
    assert len(set(keys)) == 3
