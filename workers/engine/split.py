"""Over how many processes, each with a GPU of its own, an engine's model is split. Imports vLLM and torch late.

Tensor parallelism splits each layer, pipeline parallelism the layers into groups. vLLM starts one process for each
part: inside a host itself ("mp"), above one host through Ray.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from app.contracts.errors import ErrorCode, HemostatError
from app.settings import Settings


@dataclass(frozen=True)
class Split:
    """`tensor` parts of each layer, `pipeline` groups of layers; `executor` is vLLM's name of who starts them."""

    tensor: int = 1
    pipeline: int = 1
    executor: str = "mp"

    @classmethod
    def of(cls, settings: Settings) -> Split:
        """What the settings say."""
        return cls(settings.tensor_parallel_size, settings.pipeline_parallel_size, settings.engine_executor)

    @property
    def ranks(self) -> int:
        """Processes that hold a part."""
        return self.tensor * self.pipeline

    def __str__(self) -> str:
        """`2 tensor parts and 3 pipeline stages`; empty if nothing is split."""
        parts = ((self.tensor, "tensor parts"), (self.pipeline, "pipeline stages"))
        return " and ".join(f"{count} {what}" for count, what in parts if count > 1)

    def check(self, device: str) -> None:
        """Raises ENGINE_FAILED if Ray is asked for and not installed, or if this host has too few GPUs."""
        if self.ranks == 1:
            return
        if self.executor == "ray":
            if find_spec("ray") is None:
                raise HemostatError(
                    ErrorCode.ENGINE_FAILED,
                    "HEMOSTAT_ENGINE_EXECUTOR is ray, which is not installed",
                    hint="install ray on each host and join them, or set the variable to mp for the GPUs of one host",
                )
            return
        if device == "cuda":
            import torch

            count = torch.cuda.device_count()
            if count < self.ranks:
                raise HemostatError(
                    ErrorCode.ENGINE_FAILED,
                    f"the model is split into {self.tensor} x {self.pipeline} parts, and {count} GPUs are visible",
                    hint="lower HEMOSTAT_TENSOR_PARALLEL_SIZE or HEMOSTAT_PIPELINE_PARALLEL_SIZE; a worker takes its "
                    "GPUs when it starts: start it again after a change of models.toml",
                )

    def arguments(self) -> dict[str, Any]:
        """Those of vLLM's engine."""
        if self.ranks == 1:
            return {}
        return {
            "tensor_parallel_size": self.tensor,
            "pipeline_parallel_size": self.pipeline,
            "distributed_executor_backend": self.executor,
        }

    @contextlib.contextmanager
    def environment(self, more: Mapping[str, str]) -> Iterator[None]:
        """While processes start: each takes its part of the threads that this one has."""
        import torch

        wanted = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // self.ranks)), **more}
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            yield
        finally:
            os.environ.update({name: value for name, value in before.items() if value is not None})
            for name in (name for name, value in before.items() if value is None):
                del os.environ[name]


WHOLE = Split()
