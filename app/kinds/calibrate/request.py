"""The request of a `calibrate` job."""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from app.contracts.option import Option
from app.contracts.request import JobRequest
from app.contracts.text import Domain, SelfText, ShippedText, TextSource
from app.kinds.calibrate.calibrators import FITTED, NAMES

_CALIBRATOR = f"({'|'.join(FITTED)})"
CALIBRATOR_PATTERN: Final = rf"^{_CALIBRATOR}(\+{_CALIBRATOR})*$"
CalibratorName = Annotated[str, Field(max_length=120, pattern=CALIBRATOR_PATTERN)]
# Some alone, so that the table shows what each is worth, and the compositions of which one is usually chosen.
CALIBRATORS: Final[tuple[CalibratorName, ...]] = (
    "temperature",
    "confidence",
    "token_bias",
    "lowrank",
    "lowrank+confidence",
    "lowrank+token_bias+confidence",
)
# A low-rank map or token biases after the blocks take as long to fit as these together, and save 2 % more.
WITH_BLOCKS: Final[tuple[CalibratorName, ...]] = ("confidence", "blocks", "blocks+confidence")


class CalibrateRequest(JobRequest):
    """Fit corrections of the candidate's distribution towards the reference's, choose one, and prove it on test text.

    Three disjoint sets of documents: one is fitted, one stops the fitting and chooses, one is read once and decides.
    """

    kind: Literal["calibrate"]
    text: Annotated[TextSource, Option(shape="text")] = Field(
        default_factory=lambda: ShippedText(source="shipped", corpus="calibration"),
        description="documents to fit and to choose by",
    )
    test_text: Annotated[TextSource | None, Option(shape="text")] = Field(
        default=None,
        description="documents of the test; default: the shipped evaluation corpus if `text` is the shipped "
        "calibration corpus, else a share of the documents of `text`",
    )
    fit_domains: Annotated[
        Annotated[tuple[Domain, ...], Field(min_length=1, max_length=100)] | None, Option("--fit-domain")
    ] = Field(default=None, description="domains of `text` to fit on; the other domains are only tested. Default: all")
    tokens: Annotated[int, Field(ge=256, le=1_000_000)] = Field(default=25_000, description="most tokens to fit on")
    own_tokens: Annotated[int, Field(ge=0, le=1_000_000, multiple_of=256)] = Field(
        default=16_384,
        description="tokens that the reference writes for the fit of `blocks`; none if a text is `self`",
    )
    refine_steps: Annotated[int, Field(ge=0, le=100_000)] = Field(
        default=0,
        description="steps of gradient descent that refine `blocks`, of 1,024 tokens or one window. 0: none",
    )
    calibrators: Annotated[
        Annotated[tuple[CalibratorName, ...], Field(min_length=1, max_length=32)] | None, Option("--calibrator")
    ] = Field(
        default=None,
        description=f"calibrators to fit and compare: {NAMES}; `+` composes. Default: {', '.join(WITH_BLOCKS)}; if "
        f"blocks cannot be fitted, {', '.join(CALIBRATORS)}",
    )
    tolerance: Annotated[float, Field(ge=0, le=0.1)] = Field(
        default=0.005,
        description="the upper limit of (calibrated − raw) KL of a domain may be at most this share of its raw KL",
    )
    deployment: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = (
        Field(default=None, description="id or name of the deployment that is to serve the profile if it passes")
    )

    @model_validator(mode="after")
    def _can_be_fitted(self) -> Self:
        """A composition has each kind once, and at most one of the last hidden state."""
        for name in self.calibrators or ():
            kinds = name.split("+")
            if len(set(kinds)) < len(kinds) or sum(FITTED[kind].hidden for kind in kinds) > 1:
                raise ValueError(f"{name} has a kind twice, or two corrections of the last hidden state")
        return self

    @property
    def tested(self) -> TextSource | None:
        """Where the test documents come from; None: a share of those of `text`."""
        if self.test_text is None and isinstance(self.text, ShippedText) and self.text.corpus == "calibration":
            return ShippedText(source="shipped", corpus="evaluation")
        return self.test_text

    @property
    def written(self) -> int:
        """Tokens that the reference writes for the fit. Text it has written before may be the same, and decide."""
        return 0 if any(isinstance(text, SelfText) for text in (self.text, self.test_text)) else self.own_tokens

    @property
    def for_deployment(self) -> str | None:
        """The deployment that is to serve the profile."""
        return self.deployment
