"""Everything that can be refused before a job is queued. Needs neither torch nor a weight.

Reads folders and file headers: call it from a thread, not from an event loop.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.request import JobRequest
from app.kinds.registry import KINDS
from app.models.checkpoint import CheckpointInfo, inspect, same_content, same_model
from app.models.contexts import check_calibration_window, check_window, shortest
from app.models.packing import check_served
from app.models.registry import ModelEntry, Registry
from app.models.steps import Beside, check_recipe
from app.models.steps.others import checker
from app.models.texts import check_text
from app.models.tokenizers import check_tokenizer, compare_tokenizers
from app.recipes.base import Calibrated, Step
from app.recipes.recipe import Recipe
from app.settings import Settings

# Bytes of copied files that a check reads, about a second's; the worker has fingerprints of larger ones.
MOST_COMPARED: Final = 2 * 1024**3


# Fields that decide nothing beside another field of their step: named before the job is queued, not passed over. A
# field that is at its default is not taken to have been asked for. Nor is a `seed`, which may be given to every
# step of a recipe alike. Where a knob turns the field that decides, the other one counts at some of its values.
def check_idle(recipe: Recipe, *, pointer: str, turned: Mapping[int, Collection[str]] | None = None) -> None:
    """Raises RECIPE_NOT_APPLICABLE with the pointer of the first field that decides nothing where it is. `turned`:
    fields that knobs turn, by the step's index."""
    for index, step in enumerate(recipe):
        by_knob = (turned or {}).get(index, ())
        for fields, because, detail, hint in step.idle():
            if any(one in by_knob for one in because):
                continue
            for field in fields:
                if field in by_knob or getattr(step, field) != _default(step, field):
                    raise HemostatError(
                        ErrorCode.RECIPE_NOT_APPLICABLE,
                        f"{field} has no effect here: {detail}",
                        hint=f"leave {field} out, or {hint}",
                        pointer=f"{pointer}/{index}/{field}",
                    )


def _default(step: Step, field: str) -> object:
    value: object = type(step).model_fields[field].get_default(call_default_factory=True)
    return value


def _served(entry: ModelEntry, pointer: str) -> CheckpointInfo:
    """The checkpoint of a model that the vLLM of this machine has kernels for."""
    info = inspect(entry.checkpoint_path(pointer=pointer), pointer=pointer, name=entry.alias)
    check_served(info.quantization, entry.alias, pointer=pointer)
    return info


def _check_twins(request: JobRequest, reference: CheckpointInfo, candidate: CheckpointInfo) -> None:
    """Two aliases of the same weights are one model, as the same alias twice is (`JobRequest`)."""
    if not (request.self_check or request.candidate.recipe) and same_content(reference, candidate, MOST_COMPARED):
        raise same_model(request.reference.model, request.candidate.model)


def check_request(request: JobRequest, registry: Registry, settings: Settings) -> None:
    """Returns where the request can be run as far as can be known without its tensors and tokens.

    Raises `HemostatError` with the JSON pointer of the field to blame. Its code is one of these:

    - Of models: UNKNOWN_MODEL, VOCABULARY_MISMATCH, every CHECKPOINT_* code of `inspect` and `check_tokenizer`.
    - Of recipes: UNKNOWN_MODULE, GROUP_SIZE_MISMATCH, PATTERN_MISMATCH, RECIPE_NOT_APPLICABLE.
    - Of texts: PATH_FORBIDDEN, TEXT_NOT_FOUND, DOCUMENT_TOO_SHORT, DOCUMENT_NOT_TEXT, CHAT_TEMPLATE_MISSING,
      WINDOW_TOO_LARGE.
    - INVALID_REQUEST: two documents of one id, two dtypes, one model twice, a budget below what the candidate takes.
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
            hint="give both the same dtype; otherwise the difference includes rounding",
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
    if request.reads_windows and not _turns_context(request):
        check_window(request, one, other, after)
    for field, text in request.texts.items():
        check_text(text, tokenizer, settings, f"/{field}", scored=request.reads_windows)
    for field, text in request.looked_at.items():
        check_text(text, tokenizer, settings, f"/{field}")
    for index, step in enumerate(request.candidate.recipe):
        if isinstance(step, Calibrated):
            check_text(step.calibration, tokenizer, settings, f"/candidate/recipe/{index}/calibration")
    KINDS[request.kind].call("check", request, Checked(request, registry, settings, tokenizer, one, other, after))


@dataclass(frozen=True)
class Checked:
    """A request whose models, recipe and texts can be used: what the check of its kind looks at.

    `source` is the candidate before its recipe, `candidate` after it.
    """

    request: JobRequest
    registry: Registry
    settings: Settings
    tokenizer: Path
    reference: CheckpointInfo
    source: CheckpointInfo
    candidate: CheckpointInfo

    @property
    def context(self) -> int | None:
        """Tokens of the shorter context of reference and candidate; None: no limit is known."""
        return shortest(self.reference, self.candidate)

    def check_recipe(self, recipe: Recipe) -> None:
        """Raises where the candidate cannot take another recipe, or not read the windows after it."""
        beside = _beside(self.registry, self.settings)
        after = check_recipe(self.source, recipe, pointer="/candidate/recipe", beside=beside, reference=self.reference)
        check_window(self.request, self.reference, self.source, after)


def _turned(request: JobRequest) -> dict[int, set[str]]:
    """The fields that knobs turn, by the step's index."""
    found: dict[int, set[str]] = {}
    for knob in request.turned:
        found.setdefault(knob.step, set()).add(knob.field)
    return found


def _turns_context(request: JobRequest) -> bool:
    """Whether a knob decides how long a window may be: what its field has in the recipe is a placeholder then."""
    steps = request.candidate.recipe
    return any(steps[knob.step].role == "context" for knob in request.turned if knob.step < len(steps))


def _beside(registry: Registry, settings: Settings) -> Beside:
    """What is looked at for each step beside shapes: an adapter or other model, and calibration windows."""
    check_others = checker(registry, settings)

    def check(info: CheckpointInfo, step: Step, pointer: str) -> None:
        check_others(info, step, pointer)
        check_calibration_window(info, step, pointer)

    return check
