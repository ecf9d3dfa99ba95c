"""What of a mitigate job can be refused before it is queued, and what its search takes, from sizes alone."""

from contextlib import suppress
from typing import Final

from app.contracts.errors import HemostatError
from app.kinds.estimates import Cost
from app.kinds.mitigate.least_size import check_budget, least_bytes
from app.kinds.mitigate.request import MitigateRequest, TreatmentName
from app.kinds.preflight import Checked
from app.models import pace
from app.models.calibration_size import sized
from app.models.checkpoint import CheckpointInfo
from app.models.contexts import check_calibration, shortest
from app.models.text_size import measure
from app.models.training import measured_tokens
from app.recipes.base import Step
from app.recipes.prune import PruneGradient
from app.recipes.quantize import QuantizeDynamic
from app.recipes.recipe import Recipe
from app.recipes.repair import RepairLowrank

# Passes over the text beside those of trials.
PASSES: Final = 3
# Of all trials: those in full, and those with mixed widths where dynamic scaling replaces a step.
FULL, MIXED = 1 / 3, 1 / 4
# Of a repair's calibration windows, so many more the reference writes where it is tried with text of its own.
OWN_SHARE: Final = 1 / 2
# The most steps of recovery that a pruning by gradients is tried with.
RECOVERY_STEPS: Final = 200


def check(request: MitigateRequest, checked: Checked) -> None:
    """Raises `HemostatError` if the budget has no room for the candidate, or where windows of the calibration text
    do not fit it before its recipe or after it."""
    least = least_bytes(checked.source, request.candidate.recipe)
    if least is not None:
        check_budget(request.budget, least, checked.candidate.parameters)
    if request.reads_text:
        context = shortest(checked.source, checked.candidate)
        check_calibration(request.calibration_window, context, "/calibration_window")


def cost(request: MitigateRequest, cost: Cost) -> None:
    """Adds the search."""
    _, held, _ = measure(request.calibration, cost.settings)
    seconds, told = search_cost(request, cost.candidate, cost.reference, cost.steps, held)
    # Candidate, parts of it, and trials over a part of the text; the front over the rest.
    cost.seconds += cost.passes((PASSES + request.trials / 2) * cost.tokens, cost.candidate) + seconds
    cost.add_checkpoints(request.trials + 1)
    cost.assumptions += told


def takes_own_text(recipe: Recipe) -> bool:
    """Whether repair is tried with the reference's own text, too: what it takes back behind pruning and low rank hangs
    on its text, behind rounding hardly (docs/recipes/repair.md)."""
    return any(step.role in {"pruner", "factorizer"} for step in recipe)


def own_windows(windows: int) -> int:
    """How many windows the reference then writes beside so many of the calibration text."""
    return max(1, round(windows * OWN_SHARE))


def search_cost(
    request: MitigateRequest, candidate: CheckpointInfo, reference: CheckpointInfo, here: pace.Pace, held: int
) -> tuple[float, tuple[str, ...]]:
    """(seconds that a search takes beside passes over the text, what is assumed of them). `held`: tokens of the
    calibration text."""
    fitted = request.trials * request.calibration_windows * request.calibration_window / 2
    seconds = here.seconds(pace.CHANGED, request.trials * candidate.parameters)
    seconds += here.seconds(pace.TREATED, fitted * candidate.parameters)
    told = (
        f"{request.trials} trials, a third of them in full: each makes a checkpoint and fits it on text, in proportion "
        "to parameters and tokens"
    )
    steps = [sized(step, candidate, held) for step in _trained(request)]
    longest = max(steps, key=lambda step: step.trained_tokens, default=None)
    if longest is not None and longest.trained_tokens:
        run = FULL * request.trials * longest.trained_tokens
        seconds += here.seconds(pace.TRAINED[longest.trained_in], run * candidate.parameters)
        told += "; in full, each is taken to train as the longest that may be tried does"
    if written := max((step.written_tokens for step in steps), default=0):
        run = FULL * request.trials * written
        seconds += here.seconds(pace.WRITTEN, run * reference.parameters)
        told += f", and to be fitted on {written:,} tokens that the reference writes itself, too"
    if _has_place(request, "quantize.dynamic"):
        mixed = QuantizeDynamic(
            type="quantize.dynamic",
            bits=4,
            mixed=True,
            calibration_windows=request.calibration_windows,
            calibration_window=request.calibration_window,
        )
        with suppress(HemostatError):  # of weights that it cannot be done to, no trial is made
            run = MIXED * request.trials * measured_tokens(mixed, candidate)
            seconds += here.seconds(pace.MEASURED, run * candidate.parameters)
            told += "; a quarter measure what units cost at each width"
    return seconds, (
        told,
        "checkpoints of trials are kept within the checkpoint budget, the least recently used go first",
    )


def _trained(request: MitigateRequest) -> list[Step]:
    """The treatments that train most, as they are tried in full."""
    windows, window = request.calibration_windows, request.calibration_window
    found: list[Step] = []
    if "repair.lowrank" in request.treatments:
        found.append(
            RepairLowrank(
                type="repair.lowrank",
                rank=1,
                calibration_windows=windows,
                calibration_window=window,
                own_windows=own_windows(windows) if takes_own_text(request.candidate.recipe) else 0,
            )
        )
    if _has_place(request, "quantize.dynamic"):
        found.append(
            QuantizeDynamic(type="quantize.dynamic", bits=4, calibration_windows=windows, calibration_window=window)
        )
    if _has_place(request, "prune.gradient"):
        found.append(
            PruneGradient(
                type="prune.gradient",
                sparsity=0.5,
                recovery_steps=RECOVERY_STEPS,
                calibration_windows=windows,
                calibration_window=window,
            )
        )
    return found


def _has_place(request: MitigateRequest, treatment: TreatmentName) -> bool:
    return treatment in request.treatments and any(step.replaced_by == treatment for step in request.candidate.recipe)
