"""`python -m tests.bench.tasks_job HOME`: the jobs of `tests.bench.tasks`, in the process that computes them.

`HOME/asked.json` names them with their requests; each leaves `HOME/NAME.json`, its report and how long each of its
tasks took, and the page of the report. They share the engine and the reference's states. The process has the
environment of a worker's child.
"""

import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

from app.contracts.task import FileTask, ShippedTask
from app.kinds.tasks.request import TasksRequest
from app.models.registry import register
from app.models.tasks.items import Item
from app.reports.render import render
from app.settings import Settings
from tests.bench.cases import MODEL, BenchContext
from workers.answering.pair import Answered, AnsweringPair
from workers.diagnosis.tasks import job
from workers.engine.room import EngineRoom
from workers.surgery.import_gguf import demo_gguf, import_gguf


class Telling(BenchContext):
    """A job's context whose log is standard error."""

    def log(self, message: str) -> None:
        sys.stderr.write(f"{self.job_id}: {message}\n")


class TimedDesk(AnsweringPair):
    """Notes how long each task takes."""

    seconds: ClassVar[dict[str, float]] = {}

    def answer(self, number: int, task: ShippedTask | FileTask, items: Sequence[Item]) -> Answered:
        began = time.perf_counter()
        answered = super().answer(number, task, items)
        self.seconds[task.title] = time.perf_counter() - began
        self.context.log(f"{task.title}: answered in {self.seconds[task.title]:.0f} s")
        return answered


def main(home: Path) -> None:
    """Runs what is asked in turn; each leaves its file when it is done."""
    if not (MODEL / "model.safetensors").is_file():
        import_gguf(demo_gguf(), MODEL)
    settings = Settings(home=home, text_root=home / "texts")
    if not settings.models_file.is_file():
        register(settings.models_file, "smollm2-135m", MODEL)
    asked: dict[str, dict[str, Any]] = json.loads((home / "asked.json").read_text(encoding="utf-8"))
    room = EngineRoom(settings)
    for name, body in asked.items():
        shutil.rmtree(settings.job_dir(name), ignore_errors=True)  # of an earlier run: nothing is to be found answered
        TimedDesk.seconds.clear()
        began = time.perf_counter()
        with patch.object(job, "AnsweringPair", TimedDesk):
            report = job.tasks(TasksRequest.model_validate(body), Telling(settings, name), room)
        seconds = {"job": time.perf_counter() - began, **TimedDesk.seconds}
        told = report.model_dump(mode="json")
        (home / f"{name}.json").write_text(json.dumps({"report": told, "seconds": seconds}), encoding="utf-8")
        (home / f"{name}.html").write_text(render(told), encoding="utf-8")
    room.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
