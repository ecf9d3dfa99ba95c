"""Low rank: the rank must be below both dimensions of every weight."""

from fractions import Fraction

from app.contracts.errors import not_applicable
from app.models.checkpoint import CheckpointInfo
from app.models.modules import Weight, check_step, select
from app.models.steps.blockwise import check_blocks
from app.recipes.base import Calibrated, Step
from app.recipes.lowrank import Truncated


def check(info: CheckpointInfo, step: Step, pointer: str) -> list[Weight]:
    """The weights that the step addresses.

    Raises what `check_step` and `check_blocks` raise, and RECIPE_NOT_APPLICABLE for a rank that is not below the
    smaller dimension of a weight or for a share that leaves no rank.
    """
    chosen = check_step(info, step, pointer=pointer)
    if isinstance(step, Calibrated):
        check_blocks(info, chosen, pointer=pointer)
    if isinstance(step, Truncated):
        for weight in sorted(chosen, key=lambda one: min(one.shape)):  # the smallest says what is possible
            _check_rank(step, weight, chosen, pointer)
    return chosen


def share(info: CheckpointInfo, step: Step, field: str) -> float | None:
    """1 − rank/full, full the smaller dimension, mean over the weights that the step addresses; a ratio as given."""
    if not isinstance(step, Truncated):
        return None
    if field == "rank" and step.rank is not None:
        kept = [min(1.0, step.rank / min(weight.shape)) for weight in select(info, step)]
        return 1 - sum(kept) / len(kept)
    return step.ratio if field == "ratio" else None


def rank_of(step: Truncated, shape: tuple[int, ...]) -> int:
    """The rank that a weight of that shape (O, I) keeps: as given, or r = ⌊(1 − ratio) · O·I / (O + I)⌋. Two factors of
    that rank take (1 − ratio) of its parameters. May be 0."""
    if step.rank is not None:
        return step.rank
    outputs, inputs = shape
    kept = 1 - Fraction(str(step.ratio or 0.0))  # 1 − 0.9 in binary is less than a tenth
    return int(kept * outputs * inputs / (outputs + inputs))


def _check_rank(step: Truncated, weight: Weight, chosen: list[Weight], pointer: str) -> None:
    rank = rank_of(step, weight.shape)
    if rank >= min(weight.shape):
        most = min(min(other.shape) for other in chosen) - 1
        raise not_applicable(
            f"rank {rank} is not below the smaller dimension of {weight.name} {list(weight.shape)}",
            hint=f"give a rank of at most {most}, or name modules that are larger",
            pointer=f"{pointer}/rank",
        )
    if rank < 1:
        raise not_applicable(
            f"ratio {step.ratio} leaves rank 0 for {weight.name} {list(weight.shape)}",
            hint="give a smaller ratio, or a rank",
            pointer=f"{pointer}/ratio",
        )
