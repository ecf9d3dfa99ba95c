"""Our side of vLLM's workers: what looks into a model, or changes it, where it is. Imports vLLM.

vLLM mixes `Rank` into its worker, and imports this module before the worker makes its part of the model. That is in the
engine's own process if it holds the whole model, else in each of those that hold a part.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable
from functools import wraps
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import torch

from app.contracts.errors import HemostatError
from app.files import write_atomically
from workers.calibrators.blocks import Blocks
from workers.engine import blocks as stream
from workers.engine import mending, norms, simulation, speculation
from workers.engine import vllm_names as vllm
from workers.engine.isolation import globals_kept, quiet_vllm
from workers.engine.launch import FAULTS, load_vllm
from workers.engine.speculation import Judge


class _Faults(logging.Handler):
    """Keeps why a part of a model did not start: vLLM hands on that it did not, and logs the cause alone."""

    def emit(self, record: logging.LogRecord) -> None:
        folder = Path(os.environ.get(FAULTS, ""))
        error = record.exc_info[1] if record.exc_info else None
        if not folder.is_absolute() or not folder.is_dir() or error is None:  # it is there during the start alone
            return
        known = error if isinstance(error, HemostatError) else RuntimeError(f"{type(error).__name__}: {error}")
        write_atomically(folder / f"{os.getpid()}.error", pickle.dumps(known))


load_vllm()
if vllm.current_platform.is_cpu():
    norms.register()
if parent_process() is not None:
    logging.getLogger(vllm.NAMES["multiproc_executor"]).addHandler(_Faults())


def _answered(method: Callable[..., Any]) -> Callable[..., Any]:
    """An error of ours is the answer: between processes vLLM would hand on its text alone."""

    @wraps(method)
    def call(self: Any, *given: Any) -> Any:
        try:
            return method(self, *given)
        except HemostatError as error:
            return error

    return call


class Rank:
    """Called by `workers.engine.launch.on_ranks`; `self` is vLLM's worker."""

    vllm_config: Any
    model_runner: Any

    @_answered
    def hemostat_install(self: Any, checkpoint: str, draft: str | None) -> None:
        """What `workers.engine.simulation.install` does, and raises, to the model and to the one that drafts for it."""
        runner, model = self.model_runner, self.model_runner.get_model()
        mending.take_states(runner, model)
        mending.unlink_shared_memory()
        simulation.install(model, Path(checkpoint))
        if draft is not None:
            simulation.install(runner.drafter.model, Path(draft))

    @_answered
    def hemostat_judge(self: Any, judge: Judge) -> None:
        """From now on `judge` draws all tokens."""
        speculation.install(self.model_runner, judge)

    @_answered
    def hemostat_correct(self: Any, many: list[Blocks]) -> None:
        """From now on `many` correct all rows after each block, in turn, and nothing that was given here before."""
        model = self.model_runner.get_model()
        for one in getattr(self, "_hemostat_slots", ()):
            one.remove()
        self._hemostat_slots = [
            stream.correct_always(model, f"hemostat_given_{place}", blocks) for place, blocks in enumerate(many)
        ]

    @_answered
    def hemostat_projects(self: Any) -> bool:
        """Whether a pooling engine changes the final hidden states."""
        pooler = getattr(self.model_runner.get_model(), "pooler", None)
        return pooler is not None and pooler.poolers_by_task["token_embed"].head.projector is not None

    @_answered
    def hemostat_reload(self: Any, checkpoint: str) -> list[str]:
        """Reads a checkpoint's weights; the names of parameters that got none."""
        model = self.model_runner.get_model()
        with globals_kept(), quiet_vllm():
            mending.forget_packed_experts(self.vllm_config, model)
            self.reload_weights(weights_path=checkpoint)
        return [name for name, tensor in model.named_parameters() if tensor.is_meta]

    @_answered
    def hemostat_held(self: Any) -> int:
        """Bytes that this process holds of its GPU."""
        return int(torch.cuda.memory_reserved())
