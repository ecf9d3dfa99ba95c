"""The logits processor of `workers.engine.drafting`; imported by vLLM, by name.

Names: R rows of a step, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from workers.engine.drafting import ARGUMENT, drawer


class DraftProcessor(LogitsProcessor):  # type: ignore[misc]  # vLLM ships no types
    """Lets the caller draw each row's token, and leaves vLLM no other."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._rows: dict[int, tuple[int, int]] = {}  # row -> number of the engine, key of the request

    def is_argmax_invariant(self) -> bool:
        """It decides which token is taken: never left out."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follows vLLM's rows: removed, then added, then moved."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._rows.pop(row, None)
        for row, params, _, _ in batch_update.added:
            told = (params.extra_args or {}).get(ARGUMENT)
            self._rows.pop(row, None)
            if told is not None:
                self._rows[row] = (int(told[0]), int(told[1]))
        for source, target, direction in batch_update.moved:
            here, there = self._rows.pop(source, None), self._rows.pop(target, None)
            if here is not None:
                self._rows[target] = here
            if there is not None and direction is MoveDirectionality.SWAP:
                self._rows[source] = there

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """logits_RV: −inf but for the drawn token of each row that is ours."""
        rows = sorted(row for row in self._rows if row < logits.shape[0])
        for number in sorted({self._rows[row][0] for row in rows}):
            ours = [row for row in rows if self._rows[row][0] == number]
            tokens = drawer(number)(logits[ours].float(), [self._rows[row][1] for row in ours])
            logits[ours] = -torch.inf
            logits[ours, list(tokens)] = 0.0
        return logits
