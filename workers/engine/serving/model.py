"""A model class of vLLM with calibration between its hidden states and the sampler. Imports vLLM."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from workers.engine import simulation
from workers.engine import vllm_names as vllm
from workers.engine.serving import engines
from workers.engine.serving.batch import Pass


@cache
def calibrated(base: type[torch.nn.Module]) -> type[torch.nn.Module]:
    """The subclass of an in-tree causal language model that calls the hooks of its engine; without any it is `base`."""

    class Calibrated(base):  # type: ignore[misc, valid-type]
        def __init__(self, *, vllm_config: Any, prefix: str = "", **rest: Any) -> None:
            super().__init__(vllm_config=vllm_config, prefix=prefix, **rest)
            engine = engines.of(vllm_config)
            self._hooks = None if engine is None else engine.batch
            self._config = vllm_config
            simulation.install(self, Path(vllm_config.model_config.model))
            if engine is not None:
                engine.has_model = True
                if engines.correctable_layers(vllm_config):
                    engine.batch.slots = engines.slots(self, vllm_config)

        def forward(self, input_ids: torch.Tensor, positions: torch.Tensor, *rest: Any, **named: Any) -> Any:
            if self._hooks is not None and self._hooks.tainted and positions.device.type == "cpu":
                _clean_new_blocks(self._config)
            if self._hooks is not None:
                self._hooks.entering(_starts())
            output = super().forward(input_ids, positions, *rest, **named)
            if self._hooks is not None and isinstance(output, torch.Tensor):
                self._hooks.passed(lambda: Pass(input_ids, positions, _starts(), output))
            return output

        def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
            if self._hooks is None:
                plain: torch.Tensor | None = super().compute_logits(hidden_states)
                return plain
            return self._hooks.compute_logits(hidden_states, super().compute_logits)

    Calibrated.__name__ = Calibrated.__qualname__ = base.__name__
    return Calibrated


def _starts() -> Callable[[], list[int]]:
    """First token of each row in the pass that runs; read only where it is needed."""
    metadata = vllm.get_forward_context().attn_metadata
    found = list(metadata.values()) if isinstance(metadata, dict) else []
    starts = next((one.query_start_loc for one in found if hasattr(one, "query_start_loc")), None)
    return lambda: [] if starts is None else starts.tolist()


def _clean_new_blocks(vllm_config: Any) -> None:
    """Zeroes the cache blocks that this pass begins, where a request that was not finite may have left its values.

    The CPU's attention multiplies what is behind a request's last token in its last block with zero, which NaN
    survives. Blocks are handed on as they are. The GPU's kernels do not read behind the end.
    """
    metadata = vllm.get_forward_context().attn_metadata
    if not isinstance(metadata, dict):
        return
    layers = vllm_config.compilation_config.static_forward_context
    size = vllm_config.cache_config.block_size
    blocks: dict[int, list[int]] = {}
    for name, one in metadata.items():
        cache = getattr(layers.get(name), "kv_cache", None)
        if not isinstance(cache, torch.Tensor) or not hasattr(one, "block_table"):
            continue
        if id(one) not in blocks:
            blocks[id(one)] = _last_blocks_begun(one, size)
        for block in blocks[id(one)]:
            cache[block].zero_()


def _last_blocks_begun(metadata: Any, size: int) -> list[int]:
    starts, lengths = metadata.query_start_loc.tolist(), metadata.seq_lens.tolist()
    begun = []
    for row, length in enumerate(lengths):
        before = length - (starts[row + 1] - starts[row])
        if length > before and (length - 1) // size > (before - 1) // size:
            begun.append(int(metadata.block_table[row, (length - 1) // size]))
    return begun
