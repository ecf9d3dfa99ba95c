"""Other weights in a running engine: a fifth of a second instead of a start.

A reload of vLLM is in place if possible, but can go wrong without a word. Examples are merged tensors half loaded,
kernels that keep pointers to freed scales, experts that are not packed again. So a swap is used only where it is
proven, for an architecture and a packing, that the swapped engine scores bit for bit as a freshly started one. `PROVEN`
lists what the tests prove on a CPU. For everything else the first swap is followed by a fresh start, which is needed
anyway where swaps are not trusted, and the two are compared: `Trust` remembers how it came out.
"""

import logging
from pathlib import Path
from typing import Any

from app.models.checkpoint import CheckpointInfo
from workers.engine.launch import on_ranks, use_workspace
from workers.engine.shape import packing_signature
from workers.engine.split import WHOLE, Split

logger = logging.getLogger(__name__)

W8A8 = "int8 channel symmetric / int8 token dynamic symmetric"
W4A16 = "int4 group 64 symmetric"
# (device, architecture, packing), each proven by tests/integration/workers/engine/test_swap.py.
PROVEN: frozenset[tuple[str, str, str]] = frozenset(
    {
        ("cpu", "LlamaForCausalLM", "plain"),
        ("cpu", "LlamaForCausalLM", W8A8),
        ("cpu", "LlamaForCausalLM", W4A16),
        ("cpu", "Qwen2ForCausalLM", "plain"),
        ("cpu", "Gemma2ForCausalLM", "plain"),
        ("cpu", "GraniteForCausalLM", "plain"),
        ("cpu", "MixtralForCausalLM", "plain"),
    }
)


class Trust:
    """Where a swap is known to be exact, and where it is known not to be."""

    def __init__(self, device: str, proven: frozenset[tuple[str, str, str]] = PROVEN) -> None:
        self._device = device
        self._exact = set(proven)
        self._inexact: set[tuple[str, str, str]] = set()

    def proven(self, info: CheckpointInfo, split: Split = WHOLE) -> bool:
        """Whether a swap to such a checkpoint, in an engine split so, needs no comparison any more."""
        return self._key(info, split) in self._exact

    def refused(self, info: CheckpointInfo, split: Split = WHOLE) -> bool:
        """Whether a swap to such a checkpoint was found to be wrong."""
        return self._key(info, split) in self._inexact

    def record(self, info: CheckpointInfo, split: Split = WHOLE, *, exact: bool) -> None:
        """Keeps the outcome of a comparison, or of a failed reload."""
        key = self._key(info, split)
        (self._exact if exact else self._inexact).add(key)
        if not exact:
            self._exact.discard(key)
            logger.warning("from now on weights of %s are not swapped in place", key)

    def _key(self, info: CheckpointInfo, split: Split) -> tuple[str, str, str]:
        device = self._device if split == WHOLE else f"{self._device} in {split}"
        return (device, info.architecture, packing_signature(info))


def reload_weights(engine: Any, checkpoint: Path) -> None:
    """Reads the weights of `checkpoint` into a running engine of the same shape, tensors and packing.

    Raises what vLLM raises, and RuntimeError where a parameter got no weight; the engine is then good for nothing.
    """
    use_workspace(engine)
    answers = on_ranks(engine, "hemostat_reload", str(checkpoint))
    empty = [name for names in answers for name in names]
    if empty:
        raise RuntimeError(f"{len(empty)} parameters got no weight, such as {empty[0]}")
