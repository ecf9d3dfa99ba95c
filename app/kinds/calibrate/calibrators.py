"""The corrections that a calibration can fit, by name: a new one is one line here and its class in a worker."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Fitted:
    """A correction that can be fitted.

    `walk`: it acts inside the layers, and is fitted by a walk through both models before all others.
    `fit` is named as "module:function", so that only a worker loads it. Of a correction of hidden states it is
    (Objective, FitData, Settings, seed=, watch=) -> (calibrator, whether it was stopped early). Of one of logits it is
    (Fixed, FitData, Settings, check_cancelled=, reductions=) -> calibrator. Of a walk it is
    (Sides, [Corpus], scratch folder, device=, progress=, check_cancelled=) -> calibrator. That of a walk is on the
    host, others are on the objective's device.
    """

    label: str
    fit: str
    hidden: bool = False
    walk: bool = False

    @property
    def place(self) -> int:
        """Where it acts: in the layers, on the last hidden state, or on the logits."""
        return 0 if self.walk else 1 if self.hidden else 2


_FITTING: Final = "workers.calibration.fitting"
FITTED: Final[dict[str, Fitted]] = {
    "blocks": Fitted("corrections after each block", f"{_FITTING}.blocks:fit_blocks", walk=True),
    "temperature": Fitted("temperature", f"{_FITTING}.logits:fit_temperature"),
    "confidence": Fitted("confidence temperature", f"{_FITTING}.logits:fit_confidence"),
    "token_bias": Fitted("token bias", f"{_FITTING}.logits:fit_token_bias"),
    "lowrank": Fitted("low-rank map", f"{_FITTING}.hidden:fit_lowrank", hidden=True),
}
*_FIRST, _LAST = FITTED
NAMES: Final = f"{', '.join(_FIRST)} or {_LAST}"


def walks(calibrators: Iterable[str]) -> bool:
    """Whether one of them has a correction inside the layers."""
    return any(FITTED[kind].walk for name in calibrators for kind in name.split("+"))


def named(calibrator: str) -> str:
    """`lowrank+confidence` in words."""
    return ", then ".join(FITTED[part].label if part in FITTED else part for part in calibrator.split("+"))
