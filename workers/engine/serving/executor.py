"""vLLM's executor for one process, its steps timed. Imports vLLM; named by `--distributed-executor-backend`."""

from __future__ import annotations

from typing import Any

from workers.engine import vllm_names as vllm
from workers.engine.serving.steps import STEP


class InProcessExecutor(vllm.UniProcExecutor):  # type: ignore[misc]
    """It computes what its base computes. A step that never ends stops no one else from seeing how long it has run."""

    def execute_model(self, scheduler_output: Any, non_block: bool = False) -> Any:
        """The forward pass."""
        with STEP.running():
            return super().execute_model(scheduler_output, non_block)

    def sample_tokens(self, grammar_output: Any, non_block: bool = False) -> Any:
        """What comes after it."""
        with STEP.running():
            return super().sample_tokens(grammar_output, non_block)
