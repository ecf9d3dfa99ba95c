"""The logits processor that shows which request is in which row. Imports vLLM; loaded by `--logits-processors`."""

from __future__ import annotations

import re
from typing import Any, Final

import torch

from app.contracts.deployment import IDENTITY, VERSION_PATTERN
from workers.engine import vllm_names as vllm
from workers.engine.serving import engines
from workers.engine.serving.batch import KEEP_HIDDEN, REQUEST, VERSION
from workers.engine.serving.config import ServingConfig
from workers.engine.serving.rows import Change
from workers.engine.serving.status import REQUEST_ID

NAME: Final = "workers.engine.serving.processor:RowTracker"
_VERSION = re.compile(VERSION_PATTERN)


class RowTracker(vllm.LogitsProcessor):  # type: ignore[misc]
    """vLLM's side of `Batch`. Made once in an engine process, before the model is."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        del is_pin_memory
        config = ServingConfig.from_environment()
        if config is None:
            raise engines.UnsupportedEngineError("this process was not started as a server of a deployment")
        self._engine = engines.open_engine(vllm_config, device, config)

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Called in the server process: ValueError becomes a 400."""
        extra = sampling_params.extra_args or {}
        version = extra.get(VERSION, IDENTITY)
        if not isinstance(version, str) or not _VERSION.fullmatch(version):
            raise ValueError(f"{VERSION} must be {IDENTITY} or cal- and 16 hexadecimal digits")
        request = extra.get(REQUEST, "none")
        if not isinstance(request, str) or not REQUEST_ID.fullmatch(request):
            raise ValueError(f"{REQUEST} must be 1 to 128 letters, digits, dots, dashes and underscores")
        if extra.get(KEEP_HIDDEN) not in {None, 0, 1}:
            raise ValueError(f"{KEEP_HIDDEN} must be 0 or 1")
        if sampling_params.prompt_logprobs is not None and sampling_params.skip_reading_prefix_cache is False:
            raise ValueError("prompt_logprobs need the whole prompt: leave skip_reading_prefix_cache out")
        config = ServingConfig.from_environment()
        if config is not None and version != IDENTITY and not (config.profiles / version).is_dir():
            raise ValueError(f"there is no calibration profile {version}")

    def is_argmax_invariant(self) -> bool:
        """It ends requests, greedy ones too."""
        return False

    def update_state(self, batch_update: Change | None) -> None:
        """Before each forward pass."""
        if not self._engine.has_model:
            raise engines.UnsupportedEngineError(
                "the model class of the plugin is not the one that runs: is vllm.general_plugins 'hemostat' installed, "
                "and named in VLLM_PLUGINS?"
            )
        self._engine.batch.update(batch_update)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """After every other processor that can change the most likely token."""
        return self._engine.batch.force(logits)
