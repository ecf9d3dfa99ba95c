"""Everything that can be refused before a job is queued. Needs neither torch nor a weight.

Reads folders and file headers: call it from a thread, not from an event loop.
"""

from pathlib import Path

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.request import JobRequest, SweptRequest
from app.kinds.attribute.request import AttributeRequest
from app.kinds.compare.request import CompareRequest
from app.kinds.mitigate.request import MitigateRequest
from app.kinds.sweep.request import SweepRequest
from app.kinds.tasks.request import TasksRequest
from app.kinds.trajectory.request import TrajectoryRequest
from app.models.attribution import check_attribution
from app.models.checkpoint import CheckpointInfo, inspect
from app.models.contexts import check_calibration, check_calibration_window, check_window
from app.models.least_size import check_budget, least_bytes
from app.models.packing import check_served
from app.models.registry import ModelEntry, Registry
from app.models.steps import Beside, check_recipe
from app.models.steps.idle import check_idle
from app.models.steps.others import checker
from app.models.sweeping import check_swept
from app.models.tasks.checks import check_answers, check_tasks
from app.models.texts import check_text, texts_of
from app.models.tokenizers import check_tokenizer, compare_tokenizers, has_chat_template
from app.models.tool_calls import check_tool_calls
from app.models.trajectories import check_trajectory
from app.recipes.base import Calibrated, Step
from app.settings import Settings


def _served(entry: ModelEntry, pointer: str) -> CheckpointInfo:
    """The checkpoint of a model that the vLLM of this machine has kernels for."""
    info = inspect(entry.checkpoint_path(pointer=pointer), pointer=pointer, name=entry.alias)
    check_served(info.quantization, entry.alias, pointer=pointer)
    return info


def _weights(info: CheckpointInfo) -> set[tuple[int, int]]:
    """The weight files by device and inode: one folder has many paths, and the hub's cache has links."""
    stats = [(info.path / file).stat() for file in info.files]
    return {(stat.st_dev, stat.st_ino) for stat in stats}


def _check_twins(request: JobRequest, reference: CheckpointInfo, candidate: CheckpointInfo) -> None:
    """Two aliases of the same weights are one model, as the same alias twice is (`JobRequest`)."""
    if not (request.self_check or request.candidate.recipe) and _weights(reference) == _weights(candidate):
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"{request.reference.model} and {request.candidate.model} are the same weights in {candidate.path}",
            hint="name another model, add a recipe, or set self_check to compare the model with itself",
            pointer="/candidate/model",
        )


def check_request(request: JobRequest, registry: Registry, settings: Settings) -> None:
    """Returns where the request can be run as far as can be told without its tensors and tokens.

    Raises `HemostatError` with the JSON pointer of the field to blame: UNKNOWN_MODEL, every CHECKPOINT_* code of
    `inspect` and `check_tokenizer`, VOCABULARY_MISMATCH, WINDOW_TOO_LARGE, UNKNOWN_MODULE, GROUP_SIZE_MISMATCH,
    PATTERN_MISMATCH, RECIPE_NOT_APPLICABLE, PATH_FORBIDDEN, TEXT_NOT_FOUND, DOCUMENT_TOO_SHORT, DOCUMENT_NOT_TEXT,
    CHAT_TEMPLATE_MISSING, INVALID_REQUEST (two documents of one id, two dtypes, one model twice, a budget below
    what the candidate takes).
    """
    reference = registry.resolve(request.reference.model, pointer="/reference/model")
    candidate = registry.resolve(request.candidate.model, pointer="/candidate/model")
    one, other = (
        _served(entry, pointer) for pointer, entry in (("/reference/model", reference), ("/candidate/model", candidate))
    )
    if reference.dtype != candidate.dtype:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"models.toml runs {reference.alias} in {reference.dtype} and {candidate.alias} in {candidate.dtype}",
            hint="give both the same dtype: otherwise rounding is compared, not the models",
            pointer="/candidate/model",
        )
    _check_twins(request, one, other)
    if one.vocabulary != other.vocabulary:
        raise HemostatError(
            ErrorCode.VOCABULARY_MISMATCH,
            f"{reference.alias} has {one.vocabulary} tokens in its vocabulary, {candidate.alias} has "
            f"{other.vocabulary}: token {min(one.vocabulary, other.vocabulary)} is in one of them only",
            hint="two models can only be compared token by token when both use the same vocabulary",
            pointer="/candidate/model",
        )
    tokenizer = reference.tokenizer_path(pointer="/reference/model")
    check_tokenizer(tokenizer, one.vocabulary, name=reference.alias, pointer="/reference/model")
    candidates = candidate.tokenizer_path(pointer="/candidate/model")
    if tokenizer != candidates:
        check_tokenizer(candidates, other.vocabulary, name=candidate.alias, pointer="/candidate/model")
        compare_tokenizers(
            tokenizer,
            candidates,
            names=(reference.alias, candidate.alias),
            pointer="/candidate/model",
        )
    check_idle(request.candidate.recipe, pointer="/candidate/recipe", turned=_turned(request))
    after = check_recipe(
        other,
        request.candidate.recipe,
        pointer="/candidate/recipe",
        beside=_beside(registry, settings),
        reference=one,
    )
    _check_treatments(request, other, after)
    if not isinstance(request, TrajectoryRequest) and not _turns_context(request):
        check_window(request, one, other, after)
    if isinstance(request, SweptRequest):
        check_swept(
            request,
            other,
            lambda recipe: check_window(
                request,
                one,
                other,
                check_recipe(
                    other, recipe, pointer="/candidate/recipe", beside=_beside(registry, settings), reference=one
                ),
            ),
        )
    for field, text in texts_of(request).items():
        # A trajectory takes prompts from its text: the answers are the models' own.
        check_text(text, tokenizer, settings, f"/{field}", scored=not isinstance(request, TrajectoryRequest))
    if isinstance(request, AttributeRequest):
        check_attribution(request, one, after)
    if isinstance(request, TasksRequest | SweepRequest):
        check_tasks(request, settings)
        check_answers(request, one, after)
    _check_tool_calls(request, tokenizer, settings, (one, after))
    for index, step in enumerate(request.candidate.recipe):
        if isinstance(step, Calibrated):
            check_text(step.calibration, tokenizer, settings, f"/candidate/recipe/{index}/calibration")
    if isinstance(request, TrajectoryRequest):
        if request.chat and not has_chat_template(tokenizer):
            raise HemostatError(
                ErrorCode.CHAT_TEMPLATE_MISSING,
                f"the tokenizer of {reference.alias} has no chat template to put prompts into",
                hint="leave chat out, or add a chat_template.jinja beside the tokenizer",
                pointer="/chat",
            )
        check_trajectory(request, registry, lambda one: check_request(one, registry, settings))


def _turned(request: JobRequest) -> dict[int, set[str]]:
    """The fields that knobs turn, by the step's index."""
    found: dict[int, set[str]] = {}
    for knob in request.knobs if isinstance(request, SweptRequest) else ():
        found.setdefault(knob.step, set()).add(knob.field)
    return found


def _turns_context(request: JobRequest) -> bool:
    """Whether a knob decides how long a window may be: what its field has in the recipe is a placeholder then."""
    steps = request.candidate.recipe or ()
    return isinstance(request, SweptRequest) and any(
        str(getattr(steps[knob.step], "type", "")).startswith("context.")
        for knob in request.knobs
        if knob.step < len(steps)
    )


def _beside(registry: Registry, settings: Settings) -> Beside:
    """What is looked at for each step beside shapes: an adapter or other model, and calibration windows."""
    check_others = checker(registry, settings)

    def check(info: CheckpointInfo, step: Step, pointer: str) -> None:
        check_others(info, step, pointer)
        check_calibration_window(info, step, pointer)

    return check


def _check_treatments(request: JobRequest, *infos: CheckpointInfo) -> None:
    """Calibration windows of treatments must fit the candidate before its recipe and after it (`infos`), where one is
    read; the budget must have room for the candidate."""
    if not isinstance(request, MitigateRequest):
        return
    least = least_bytes(infos[0], request.candidate.recipe)
    if least is not None:
        check_budget(request.budget, least, infos[1].parameters)
    if request.reads_text:
        contexts = [info.max_position for info in infos if info.max_position is not None]
        check_calibration(request.calibration_window, min(contexts, default=None), "/calibration_window")


def _check_tool_calls(
    request: JobRequest, tokenizer: Path, settings: Settings, infos: tuple[CheckpointInfo, CheckpointInfo]
) -> None:
    if not isinstance(request, CompareRequest) or request.generate_tool_calls is None:
        return
    contexts = [info.max_position for info in infos if info.max_position is not None]
    check_tool_calls(request.generate_tool_calls, tokenizer, min(contexts, default=None))
    check_text(request.generate_tool_calls.text, tokenizer, settings, "/generate_tool_calls/text", scored=False)
