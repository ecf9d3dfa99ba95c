"""Which code does which type of step, found by name so that nothing heavy is imported before it is needed.

A *streamed* step changes one weight at a time and needs nothing else (`workers.surgery.steps.Runner`). A *whole* step
is given the checkpoint as a whole (`workers.surgery.shop.WholeStep`): it may run the model block by block, change
shapes and configuration, or pack. Mitigations stand in `workers.mitigation` and are named here, never imported.
"""

from importlib import import_module
from typing import Any

STREAMED: dict[str, str] = {
    "quantize.rtn": "workers.surgery.steps:RtnRunner",
    "prune.magnitude": "workers.surgery.steps:MagnitudeRunner",
}
WHOLE: dict[str, str] = {
    "lowrank.svd": "workers.surgery.lowrank:PlainSvd",
    "lowrank.asvd": "workers.surgery.lowrank:Asvd",
    "lowrank.svdllm": "workers.surgery.lowrank:SvdLlm",
}


def is_streamed(kind: str) -> bool:
    """Whether a type is a streamed step. Raises TypeError for one that nothing does."""
    if kind in STREAMED:
        return True
    if kind in WHOLE:
        return False
    raise TypeError(f"no surgery for {kind!r}")


def load(kind: str) -> Any:
    """The class that does a type of step; it is called with the step. Raises TypeError for one that nothing does."""
    name = STREAMED.get(kind) or WHOLE.get(kind)
    if name is None:
        raise TypeError(f"no surgery for {kind!r}")
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)
