"""The request of a `mitigate` job."""

from typing import Annotated, Final, Literal, get_args

from pydantic import Field

from app.contracts.base import Contract
from app.contracts.option import Option
from app.contracts.request import JobRequest
from app.contracts.text import ShippedText, TextSource
from app.recipes.base import Calibrated, Step
from app.recipes.recipe import STEPS

TreatmentName = Literal["repair.lowrank", "quantize.dynamic", "prune.gradient", "norm.tweak", "protect", "calibration"]
TREATMENTS: Final[tuple[TreatmentName, ...]] = get_args(TreatmentName)


class Budget(Contract):
    """What the treated model may take. Each limit is hard; null is none.

    Where neither bytes nor bits are given, the treated model may take a quarter more bytes than the candidate: without
    any limit the unmodified model would win.
    """

    bytes: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="budget: bytes of the whole model, packed, as its manifest counts them"
    )
    bits_per_weight: Annotated[Annotated[float, Field(gt=0, le=64)] | None, Option("--bits")] = Field(
        default=None, description="budget: mean bits per weight of the whole model, scales and zero points counted"
    )
    added_latency: Annotated[float, Field(ge=0, le=100)] | None = Field(
        default=None,
        description="budget: extra time per token over the candidate's, in the engine that scores; 0.1 is 10 % more",
    )


class MitigateRequest(JobRequest):
    """Find a repair of the candidate within a budget, and prove it on test text.

    Treatments are fitted on `calibration`, chosen on a share of the documents of `text`, and tested on the others (or
    on `test_text`), which are read once.
    """

    kind: Literal["mitigate"]
    test_text: Annotated[TextSource | None, Option(shape="text")] = Field(
        default=None, description="documents of the test; default: three fifths of the documents of `text`"
    )
    calibration: Annotated[TextSource, Option(shape="text")] = Field(
        default_factory=lambda: ShippedText(source="shipped", corpus="calibration"),
        description="text that treatments are fitted on; it may share no document with the others",
    )
    calibration_windows: Annotated[int, Field(ge=2, le=4096)] = Field(
        default=32, description="windows of calibration data per treatment; cheap trials use a quarter of them"
    )
    calibration_window: Annotated[int, Field(ge=8, le=32768)] = Field(
        default=512, description="tokens per window of that text"
    )
    budget: Budget = Budget()
    treatments: Annotated[tuple[TreatmentName, ...], Field(min_length=1, max_length=16), Option("--treatment")] = Field(
        default=TREATMENTS, description="treatments that may be tried"
    )
    trials: Annotated[int, Field(ge=2, le=200)] = Field(
        default=16, description="most recipes to make and measure, cheap and full trials together"
    )
    export: Annotated[
        Literal["recipe", "checkpoint"],
        Option("--checkpoint", sets="checkpoint", help="Keep the recommended checkpoint's files as artifacts, too."),
    ] = Field(
        default="recipe",
        description="`checkpoint`: the recommended checkpoint's files are artifacts of the job, too",
    )

    @property
    def reads_text(self) -> bool:
        """Whether a treatment that may be tried looks at `calibration`: those that are no steps of their own do not."""
        return any(issubclass(STEPS.get(name, Step), Calibrated) for name in self.treatments)

    @property
    def tested(self) -> TextSource | None:
        """Where the test documents come from; None: a share of those of `text`."""
        return self.test_text

    @property
    def looked_at(self) -> dict[str, TextSource]:
        """The text that treatments look at."""
        return {"calibration": self.calibration}
