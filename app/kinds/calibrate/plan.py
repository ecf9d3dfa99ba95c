"""What a calibrate job takes."""

import json
from collections.abc import Collection
from typing import Final

from app.contracts.blocks import ENGINE_SECTIONS
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import InlineText, ShippedText
from app.kinds.calibrate.calibrators import walks
from app.kinds.calibrate.request import CALIBRATORS, WITH_BLOCKS, CalibrateRequest
from app.kinds.estimates import ENGINE_START_S, Cost
from app.kinds.preflight import Checked
from app.models.checkpoint import CheckpointInfo
from app.models.pace import SCORED, TRAINED, WRITTEN, Part
from app.models.shapes import LAYOUTS
from app.models.text_size import SHIPPED
from app.recipes.repair import DISTILL_TOKENS

# Products of a token's hidden state with the head, that fitting and testing one calibrator take: six to fit, in bf16,
# one and a half to choose and test, in float32. On a GPU the head is read anew for 65 rows of a vocabulary of 128k, and
# ten sweeps over float32 logits follow a product, at a hidden size of 4,096. On two cores three calibrators of the demo
# model by the shipped corpora took a job of 347 s, of which engines and passes are taken to be 185 s.
FITTED: Final = Part(2.2e10, bf16=6 * 2, float32=1.5 * 2, moved=(6 * 2 + 1.5 * 4) / 65 + 7.5 * 10 * 4 / 4096)


def check(request: CalibrateRequest, checked: Checked) -> None:
    """Whether the text has the domains to fit on, and what is asked for can be fitted.

    Raises INVALID_REQUEST for an unknown domain of a text that is at hand and for steps that would refine nothing, and
    what `to_fit` raises.
    """
    _check_fit_domains(request)
    names = to_fit(request, checked.reference, checked.candidate, compiled=checked.settings.engine_compile)
    if request.refine_steps and not walks(names):
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"refine_steps refines blocks, and the job fits {', '.join(names)}",
            hint="leave refine_steps out, or name blocks in the calibrators",
            pointer="/refine_steps",
        )


def to_fit(
    request: CalibrateRequest, reference: CheckpointInfo, candidate: CheckpointInfo, *, compiled: bool
) -> tuple[str, ...]:
    """The calibrators that the job fits: what is asked for, else some with blocks if these can be fitted.

    `compiled`: engines run compiled. Raises CHECKPOINT_UNSUPPORTED if corrections after each block are asked for and
    cannot be fitted.
    """
    problem = _why_no_blocks(reference, candidate, compiled=compiled)
    if request.calibrators is None:
        return WITH_BLOCKS if problem is None else CALIBRATORS
    if problem is not None and walks(request.calibrators):
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            f"blocks cannot be fitted: {problem}",
            hint="leave blocks out of the calibrators",
            pointer="/calibrators",
        )
    return request.calibrators


def _why_no_blocks(reference: CheckpointInfo, candidate: CheckpointInfo, *, compiled: bool) -> str | None:
    if candidate.architecture not in LAYOUTS:
        return f"the decoder layers of {candidate.architecture} are not known"
    if (reference.layers, reference.hidden_size) != (candidate.layers, candidate.hidden_size):
        return "the models differ in depth or width"
    if ENGINE_SECTIONS & candidate.config.keys():
        return "the engine simulates something for the candidate, or corrects its blocks already"
    return "engines run compiled (HEMOSTAT_ENGINE_COMPILE)" if compiled else None


def _check_fit_domains(request: CalibrateRequest) -> None:
    text = request.text
    if isinstance(text, InlineText):
        known = {document.domain for document in text.documents}
    elif isinstance(text, ShippedText):
        lines = (SHIPPED / f"{text.corpus}.jsonl").read_text(encoding="utf-8").splitlines()
        known = {json.loads(line)["domain"] for line in lines}
    else:
        return  # a worker reads it
    for domain in request.fit_domains or ():
        if domain not in known:
            raise no_fit_domain(domain, known)


def no_fit_domain(domain: str, known: Collection[str]) -> HemostatError:
    """The refusal of a domain that the text does not have."""
    return HemostatError(
        ErrorCode.INVALID_REQUEST,
        f"the text has no domain {domain!r}; it has {', '.join(sorted(known))}",
        hint="name domains of the text, or leave them out to fit on all",
        pointer="/fit_domains",
    )


def cost(request: CalibrateRequest, cost: Cost) -> None:
    """Adds the candidate's hidden states, and the fits."""
    info = cost.reference
    names = to_fit(request, info, cost.candidate, compiled=cost.settings.engine_compile)
    count = len(names)
    cost.store *= 3 if walks(names) else 2
    cost.seconds += cost.steps.seconds(FITTED, cost.tokens * count * info.vocabulary * info.hidden_size)
    if walks(names):
        # The reference writes, both models are walked through, and a pass of the corrected candidate over the text; two
        # engines for these.
        own = request.written
        cost.seconds += cost.steps.seconds(WRITTEN, own * info.parameters) + cost.passes(cost.tokens, info)
        cost.seconds += 2 * cost.steps.seconds(SCORED, (cost.tokens + own) * info.parameters)
        cost.starts += 2 * ENGINE_START_S
        refined = request.refine_steps * max(DISTILL_TOKENS, request.window)
        cost.seconds += cost.steps.seconds(TRAINED["bf16"], refined * info.parameters)
        cost.assumptions.append(
            f"blocks: {own} tokens that the reference writes, a walk through both models, and hidden states of the "
            "corrected candidate"
        )
    cost.assumptions += [
        "hidden states of both models are stored",
        f"fitting and testing {count} calibrators, in proportion to tokens, vocabulary and hidden size",
    ]
