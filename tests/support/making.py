"""A candidate as reports know it: what was said while it was made."""

from types import SimpleNamespace
from typing import Any

from app.contracts.notice import Notice
from workers.surgery.manifest import StepRecord


def modified(*warnings: str) -> Any:
    """A modified checkpoint of two stages; these are the warnings of the second, a `quantize.gptq`."""
    notices = tuple(Notice(code="told", text=one) for one in warnings)
    steps = (
        StepRecord(steps=(0, 1), types=("quantize.rtn", "prune.magnitude"), seconds=1.0),
        StepRecord(
            steps=(2,),
            types=("quantize.gptq",),
            seconds=1.0,
            warnings=notices,
        ),
    )
    return SimpleNamespace(manifest=SimpleNamespace(steps=steps))


def sides(*warnings: str) -> Any:
    """The two models of a comparison with it, as far as its making goes."""
    return SimpleNamespace(modified=modified(*warnings))
