"""Keys and values on fewer bits, at run time: in a dtype that vLLM stores them in, or simulated.

Simulated: a grid for each token and head, or for each group of its values (as KIVI, Liu et al., arXiv
2402.02750, has for values). Its grids along tokens for keys need a window of unquantized tokens and are not built here.
Ours: the same grids for keys, bits for each side apart, and that keys are quantized after the rotary embedding, as a
cache stores them. The grids' formulas stand in `workers.surgery.even_grid`.
"""

from app.models.simulation import with_kv_cache
from app.models.steps.runtime import head_size, kv_entry
from app.recipes.quantize import QuantizeKvCache
from workers.surgery.step_run import StepRun

_PLAIN_BITS, _FP8_BITS, _SCALE_BITS = 16.0, 8.0, 16


class KvCacheStep:
    """`quantize.kv_cache`."""

    version = 1

    def __init__(self, step: QuantizeKvCache) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Writes the section; figures are bits of a key's and a value's number, grids counted, over all layers."""
        step, layers = self._step, context.source.layers
        context.config.update(with_kv_cache(context.config, kv_entry(context.source, step)))
        touched = len(set(step.layers)) if step.layers else layers
        size = head_size(context.source)
        for side, bits in (("k", step.k_bits), ("v", step.v_bits)):
            if step.dtype is not None:
                taken = _FP8_BITS
            else:
                taken = stored_bits(bits, step.group_size or size, symmetric=step.symmetric)
            context.figures[f"{side}_bits"] = round((touched * taken + (layers - touched) * _PLAIN_BITS) / layers, 4)


def stored_bits(bits: int | None, group: int, *, symmetric: bool) -> float:
    """Bits of one number: its code, and its share of a 16-bit scale and (asymmetric) a zero point of `bits` bits."""
    if bits is None:
        return _PLAIN_BITS
    return bits + (_SCALE_BITS + (0 if symmetric else bits)) / group
