"""`python -m tests.bench.decoders_job FOLDER NAME REQUEST`: one trajectory job on the demo model, for
tests.bench.decoders; leaves FOLDER/NAME.json: the report, the job's seconds and those in which each decoder wrote."""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from app.contracts.decoding import Decoder, rows_of, runs_in_vllm
from app.kinds.trajectory.request import TrajectoryRequest
from app.models.registry import register
from app.settings import Settings
from tests.bench.cases import MODEL, BenchContext
from workers.decoding.generator import STREAMS
from workers.diagnosis.trajectory.generating import PHASE
from workers.diagnosis.trajectory.job import trajectory
from workers.engine.room import EngineRoom
from workers.surgery.import_gguf import demo_gguf, import_gguf

TOLD_EVERY_S: Final = 20.0


class Watch(BenchContext):
    """A job's context that times how long texts were written: `spans`, one for each group of prompts that ran together,
    from its first step that was told to its end. The start of an engine is in none."""

    def __init__(self, settings: Settings, name: str) -> None:
        super().__init__(settings, name)
        self.spans: list[float] = []
        self._done = 0
        self._began: float | None = None
        self._over = time.perf_counter()  # when the last group ended
        self._closing = False
        self._told = 0.0

    def progress(self, phase: str, done: int, total: int) -> None:
        now = time.perf_counter()
        if now - self._told >= TOLD_EVERY_S:
            self._told = now
            sys.stderr.write(f"  {phase} {done} of {total}\n")
        if phase == PHASE:
            # The first call behind a group counts what its texts that ended early did not write: no step of the next.
            if done > self._done and self._began is None and not self._closing:
                self._began = now
            self._done, self._closing = done, False

    def observe(self, name: str, value: float, **labels: str) -> None:
        if labels.get("role") == PHASE:
            now = time.perf_counter()
            # Steps of beams count on beyond the best text; a count that reached its total early tells no beginning.
            self.spans.append(now - (self._over if self._began is None else self._began))
            self._began, self._over, self._closing = None, now, True


def groups(decoders: Sequence[Decoder], prompts: int, models: int = 2) -> Iterator[str]:
    """The decoder of each group of prompts, in the order in which they run: vLLM's first, model by model."""
    for _ in range(models):
        for decoder in sorted(decoders, key=lambda one: not runs_in_vllm(one)):
            yield from [decoder.name] * -(-prompts // max(1, STREAMS // rows_of(decoder)))


def main(home: Path, name: str, asked: str) -> None:
    """Runs the job and leaves its report."""
    if not (MODEL / "model.safetensors").is_file():
        import_gguf(demo_gguf(), MODEL)
    settings = Settings(home=home / "home")
    settings.home.mkdir(parents=True, exist_ok=True)
    register(settings.models_file, "smollm2-135m", MODEL)
    request = TrajectoryRequest.model_validate_json(asked)
    room = EngineRoom(settings)
    watch = Watch(settings, f"{name}-{uuid.uuid4().hex}")
    sys.stderr.write(f"{name}: {', '.join(one.name for one in request.decoders)}\n")
    began = time.perf_counter()
    report = trajectory(request, watch, room)
    seconds = time.perf_counter() - began
    room.close()
    writing: dict[str, float] = {one.name: 0.0 for one in request.decoders}
    for decoder, span in zip(groups(request.decoders, report.prompts), watch.spans, strict=True):
        writing[decoder] += span
    kept = {"seconds": seconds, "writing": writing, "report": json.loads(report.model_dump_json())}
    partial = home / f".{name}.json"
    partial.write_text(json.dumps(kept), encoding="utf-8")
    partial.replace(home / f"{name}.json")
    sys.stderr.write(f"{name}: {seconds:.0f} s\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
