"""A walk through the checkpoint that a step is given, over the text that it looks at."""

from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import Walk
from workers.surgery.step_run import StepRun


def walk_of(context: StepRun, skeleton: Skeleton | None = None, *, phase: str = "blocks") -> Walk:
    """Of the source as the steps before left it, in its own dtype unless `skeleton` has another. Raises what `Skeleton`
    raises."""
    text = context.calibration
    return Walk(
        skeleton or Skeleton(context.source, context.read, device=context.device),
        text.tokens_NL,
        context.scratch,
        phase=phase,
        progress=context.progress,
        check_cancelled=context.check_cancelled,
    )
