"""The logits processor of `workers.engine.drafting`; imported by vLLM, by name.

Names: R rows of a step, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch

from workers.engine import vllm_names as vllm
from workers.engine.drafting import ARGUMENT, drawer
from workers.engine.serving.rows import Change, Row, RowMap


class DraftProcessor(vllm.LogitsProcessor):  # type: ignore[misc]  # vLLM ships no types
    """Lets the caller draw each row's token, and leaves vLLM no other."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._batch = RowMap(make=Row, left=_unmoved, returned=_unmoved)

    def is_argmax_invariant(self) -> bool:
        """It decides which token is taken: never left out."""
        return False

    def update_state(self, batch_update: Change | None) -> None:
        """Follows vLLM's rows."""
        if batch_update is not None:
            self._batch.update(batch_update)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """logits_RV: −inf but for the drawn token of each row that is ours."""
        asked: dict[int, list[tuple[int, tuple[int, int]]]] = {}
        for index, row in sorted(self._batch.rows.items()):
            told = (row.params.extra_args or {}).get(ARGUMENT)
            if told is not None and index < logits.shape[0]:
                number, key = (int(part) for part in told)
                asked.setdefault(number, []).append((index, (key, len(row.output))))
        for number, ours in asked.items():
            indices = [index for index, _ in ours]
            tokens = drawer(number)(logits[indices].float(), [place for _, place in ours])
            logits[indices] = -torch.inf
            logits[indices, list(tokens)] = 0.0
        return logits


def _unmoved(_: Row) -> None:
    """Nothing is kept of a request that leaves the batch: what was drawn stays with the one who draws."""
