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
from workers.engine import mending
from workers.engine.isolation import globals_kept, quiet_vllm
from workers.engine.launch import model_of, use_workspace
from workers.engine.shape import packing_signature

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

    def proven(self, info: CheckpointInfo) -> bool:
        """Whether a swap to such a checkpoint needs no comparison any more."""
        return self._key(info) in self._exact

    def refused(self, info: CheckpointInfo) -> bool:
        """Whether a swap to such a checkpoint was found to be wrong."""
        return self._key(info) in self._inexact

    def record(self, info: CheckpointInfo, *, exact: bool) -> None:
        """Keeps the outcome of a comparison, or of a failed reload."""
        (self._exact if exact else self._inexact).add(self._key(info))
        if not exact:
            self._exact.discard(self._key(info))
            logger.warning("from now on weights of %s are not swapped in place", self._key(info))

    def _key(self, info: CheckpointInfo) -> tuple[str, str, str]:
        return (self._device, info.architecture, packing_signature(info))


def reload_weights(engine: Any, checkpoint: Path) -> None:
    """Reads the weights of `checkpoint` into a running engine of the same shape, tensors and packing.

    Raises what vLLM raises, and RuntimeError where a parameter got no weight; the engine is then good for nothing.
    """
    use_workspace(engine)
    with globals_kept(), quiet_vllm():
        mending.forget_packed_experts(engine, model_of(engine))
        engine.collective_rpc("reload_weights", kwargs={"weights_path": str(checkpoint)})
    empty = [name for name, tensor in model_of(engine).named_parameters() if tensor.is_meta]
    if empty:
        raise RuntimeError(f"{len(empty)} parameters got no weight, such as {empty[0]}")
