"""What a calibrate job takes."""

import json
from collections.abc import Collection
from typing import Final

from app.contracts.blocks import ENGINE_SECTIONS
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import InlineText, ShippedText
from app.kinds.calibrate.request import CalibrateRequest
from app.kinds.estimates import ENGINE_START_S, SHIPPED, Cost, passes
from app.kinds.preflight import Checked
from app.models.shapes import LAYOUTS

# Products of a token's hidden state with the head, that fitting and testing one calibrator take.
CPU_FIT_PER_SECOND: Final = 4e9


def check(request: CalibrateRequest, checked: Checked) -> None:
    """Whether the text has the domains to fit on, and corrections after each block can be fitted and run.

    Raises INVALID_REQUEST for an unknown domain of a text that is at hand, and if engines run compiled. Raises
    CHECKPOINT_UNSUPPORTED if the layers of an architecture are not known, or if the models differ in depth or width.
    Raises it also if the engine already does more for the candidate than its weights say.
    """
    _check_fit_domains(request)
    if not request.walks:
        return
    reference, candidate = checked.reference, checked.candidate
    problem = None
    if candidate.architecture not in LAYOUTS:
        problem = f"the decoder layers of {candidate.architecture} are not known"
    elif (reference.layers, reference.hidden_size) != (candidate.layers, candidate.hidden_size):
        problem = "the models differ in depth or width"
    elif ENGINE_SECTIONS & candidate.config.keys():
        problem = "the engine simulates something for the candidate, or corrects its blocks already"
    if problem is not None:
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            f"blocks cannot be fitted: {problem}",
            hint="leave blocks out of the calibrators",
            pointer="/calibrators",
        )
    if checked.settings.engine_compile:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            "blocks are corrected in eager engines only",
            hint="unset HEMOSTAT_ENGINE_COMPILE, or leave blocks out of the calibrators",
            pointer="/calibrators",
        )


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
    count, info = len(request.calibrators), cost.reference
    cost.store *= 3 if request.walks else 2
    cost.seconds += cost.tokens * count * info.vocabulary * info.hidden_size / CPU_FIT_PER_SECOND
    if request.walks:
        # A walk through both models, and a pass of the corrected candidate over the text in an engine of its own.
        cost.seconds += passes(cost.tokens, info, info, info)
        cost.starts += ENGINE_START_S
        cost.assumptions.append("blocks: a walk through both models, and hidden states of the corrected candidate")
    cost.assumptions += [
        "hidden states of both models are stored",
        f"fitting and testing {count} calibrators, as measured on a 2-core CPU, in proportion to tokens, vocabulary "
        "and hidden size",
    ]
