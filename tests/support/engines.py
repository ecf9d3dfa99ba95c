"""Engines of this process: started for a test, and looked into."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.models.checkpoint import inspect
from workers.engine.pool import EnginePool
from workers.engine.resident import ResidentEngine
from workers.engine.swap import Trust


def model_of(engine: Any) -> Any:
    """The model that an engine runs whose model is not split."""
    return engine.model_executor.driver_worker.worker.model_runner.get_model()


@contextmanager
def residents(pool: EnginePool) -> Iterator[Callable[[Path, Trust], ResidentEngine]]:
    """`start(checkpoint, trust)`: an engine of its own, outside the pool, closed with the block."""
    made: list[ResidentEngine] = []

    def start(checkpoint: Path, trust: Trust) -> ResidentEngine:
        info = inspect(checkpoint)
        engine = ResidentEngine(pool._options(info, 128, "bfloat16"), trust)
        made.append(engine)
        engine.load(info)
        return engine

    try:
        yield start
    finally:
        for engine in made:
            engine.close()
