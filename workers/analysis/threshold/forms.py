"""What every form of a curve has in common: a name, a fit by least squares on ln y, and what it predicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from workers.analysis.threshold.curve import Array, Curve


@dataclass(frozen=True)
class FormFit:
    """One form fitted to one curve: coefficients by name, sum of squared residuals of ln y, prediction of ln y at s."""

    params: dict[str, float]
    log_sse: float
    predict: Callable[[Array], Array] = field(repr=False)


class Form(Protocol):
    """A family of curves.

    `coefficients` counts what the fit is free to choose, a knee included; `transition` shows whether the family has a
    place where one regime gives way to another.
    """

    @property
    def name(self) -> str:
        """As it is in an answer."""
        ...

    @property
    def coefficients(self) -> int:
        """How many the fit chooses, the variance of the noise not among them."""
        ...

    @property
    def transition(self) -> bool:
        """Whether one regime gives way to another."""
        ...

    def fit(self, curve: Curve) -> FormFit:
        """The best member of the family."""
        ...
