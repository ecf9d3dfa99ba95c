"""What a calibrate job takes."""

from typing import Final

from app.kinds.calibrate.request import CalibrateRequest
from app.kinds.estimates import Cost, passes

# Products of a token's hidden state with the head, that fitting and testing one calibrator take.
CPU_FIT_PER_SECOND: Final = 4e9


def cost(request: CalibrateRequest, cost: Cost) -> None:
    """Adds the candidate's hidden states, and the fits."""
    count, info = len(request.calibrators), cost.reference
    cost.store *= 2
    cost.seconds += cost.tokens * count * info.vocabulary * info.hidden_size / CPU_FIT_PER_SECOND
    if any("blocks" in name.split("+") for name in request.calibrators):
        # A walk through both models, and a pass of the corrected candidate over the text.
        cost.seconds += passes(cost.tokens, info, info, info)
    cost.assumptions += [
        "hidden states of both models are stored",
        f"fitting and testing {count} calibrators, as measured on a 2-core CPU, in proportion to tokens, vocabulary "
        "and hidden size",
    ]
