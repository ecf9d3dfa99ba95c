"""Engines of this process, looked into."""

from typing import Any


def model_of(engine: Any) -> Any:
    """The model that an engine runs whose model is not split."""
    return engine.model_executor.driver_worker.worker.model_runner.get_model()
