"""What every kind of job asks for: models, text, window, seed; and the knob that a kind may turn over a grid.

In a request a knob is written where its value would stand: `{"type": "prune.wanda", "sparsity": {"sweep": [0.1, 0.2]}}`
or `{"sweep": {"from": 0.1, "to": 0.8, "points": 8}}`. `app.models.knobs.lift` takes it out: the recipe then holds the
first value, and `knobs` all of them. That is the form in which requests are kept, and it may be sent as well.
"""

import json
from collections.abc import Mapping
from math import prod
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from app.contracts.base import Contract, Json, broken
from app.contracts.option import Option
from app.contracts.text import FileText, HubText, ShippedText, TextSource
from app.recipes.recipe import Recipe

Alias = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
MetadataText = Annotated[str, Field(max_length=512)]
MAX_METADATA_BYTES = 1500  # kept as long as the job is
MetadataKey = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
FEWEST_VALUES = 2
MOST_VALUES = 200


class ReferenceModel(Contract):
    """The unmodified model, by alias."""

    model: Alias


class CandidateModel(Contract):
    """The modified model: an alias, and what is done to it before it is compared."""

    model: Alias
    recipe: Recipe = ()


class Thresholds(Contract):
    """Mean KL at which each class begins, in nats per token, in rising order."""

    mild: Annotated[float, Field(gt=0)] = 0.01
    moderate: Annotated[float, Field(gt=0)] = 0.05
    severe: Annotated[float, Field(gt=0)] = 0.2
    collapse: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _rising(self) -> "Thresholds":
        if not self.mild < self.moderate < self.severe < self.collapse:
            hint = "Those that are not given are mild 0.01, moderate 0.05, severe 0.2 and collapse 1."
            raise broken("thresholds must rise: mild < moderate < severe < collapse", hint=hint)
        return self


def _unchanged(given: Mapping[str, Any]) -> CandidateModel:
    return CandidateModel(model=given["reference"].model)


def require_change(candidate: CandidateModel, given: Mapping[str, Any]) -> CandidateModel:
    """The candidate. Raises ValueError if it is the reference unchanged and the request is no self-check."""
    reference = given.get("reference")
    if given.get("self_check") or reference is None or candidate != CandidateModel(model=reference.model):
        return candidate
    raise ValueError(
        "the candidate is the reference unchanged: name another model, add a recipe, or set `self_check` to "
        "compare the model with itself"
    )


class JobRequest(Contract):
    """What every kind shares."""

    # Whether the text is cut into windows, of which every token is scored; else it gives prompts alone.
    reads_windows: ClassVar[bool] = True
    # Whether windows may be longer than the reference's context.
    beyond_context: ClassVar[bool] = False

    kind: str
    reference: ReferenceModel
    self_check: bool = Field(
        default=False,
        description=(
            "The candidate may be the reference unchanged. Such a comparison checks the measurement, not a model: "
            "it satisfies no rule."
        ),
    )
    candidate: CandidateModel = Field(
        default_factory=_unchanged,
        validate_default=True,
        description="The modified model. With `self_check` it may be left out: the reference unchanged.",
    )
    text: Annotated[TextSource, Option(shape="text")] = Field(
        default_factory=lambda: ShippedText(source="shipped"),
        description="what the models are compared on; default: the shipped evaluation text",
    )
    window: Annotated[int, Field(ge=2, le=1_048_576)] = Field(default=512, description="tokens per window of the text")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(default=0, description="seed of all random choices")
    thresholds: Annotated[Thresholds, Option("--threshold", shape="thresholds")] = Field(
        default=Thresholds(), description="mean KL at which each class of damage begins"
    )
    allow_overlap: bool = Field(
        default=False,
        description="Recipe steps may read documents that are scored. The result then looks too good.",
    )
    timeout_s: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="Longest wall-clock time of one attempt, in seconds; the job then fails with `timed_out`.",
    )
    metadata: Annotated[
        dict[MetadataKey, MetadataText], Field(max_length=16), Option("--metadata", shape="metadata")
    ] = Field(default_factory=dict, description=f"your notes; at most {MAX_METADATA_BYTES} bytes of JSON")

    @property
    def turned(self) -> "tuple[Knob, ...]":
        """The knobs that are turned; none in most kinds."""
        return ()

    @property
    def tested(self) -> TextSource | None:
        """Where the test documents come from; None: `text`, or a share of its documents."""
        return None

    @property
    def texts(self) -> dict[str, TextSource]:
        """Every text source that is scored, by its field."""
        return {"text": self.text} | ({} if self.tested is None else {"test_text": self.tested})

    @property
    def looked_at(self) -> dict[str, TextSource]:
        """Every other text source, by its pointer: what treatments look at."""
        return {}

    @property
    def keeps_text(self) -> bool:
        """Whether the report may hold text: what `store_text` says; unsaid, not for hub and file sources."""
        said: bool | None = getattr(self, "store_text", None)
        return not isinstance(self.text, HubText | FileText) if said is None else said

    @property
    def for_deployment(self) -> str | None:
        """The deployment that the job is for, by id or name."""
        return None

    @field_validator("metadata")
    @classmethod
    def _small(cls, metadata: dict[str, str]) -> dict[str, str]:
        size = len(json.dumps(metadata, ensure_ascii=False).encode("utf-8", "replace"))
        if size > MAX_METADATA_BYTES:
            raise ValueError(f"metadata takes {size} bytes as JSON; at most {MAX_METADATA_BYTES} are kept")
        return metadata

    @field_validator("candidate")
    @classmethod
    def _changed(cls, candidate: CandidateModel, info: ValidationInfo) -> CandidateModel:
        return require_change(candidate, info.data)


class Submission(JobRequest):
    """The body of a submission. `dry_run` validates and estimates, and runs nothing."""

    dry_run: bool = False


class Knob(Contract):
    """One field of one step of the candidate's recipe, and the values that it takes."""

    step: Annotated[int, Field(ge=0, lt=16)] = Field(description="of the candidate's recipe, counted from 0")
    field: Annotated[str, Field(min_length=1, max_length=64)]
    values: Annotated[tuple[Json, ...], Field(min_length=FEWEST_VALUES, max_length=MOST_VALUES)]


class SweptRequest(JobRequest):
    """What kinds that turn knobs share. The candidate's recipe holds the first value of each knob."""

    knobs: tuple[Knob, ...]
    self_check: Annotated[bool, Option(hidden=True)] = False  # a knob changes the candidate

    @property
    def turned(self) -> tuple[Knob, ...]:
        """The knobs that are turned."""
        return self.knobs

    @property
    def planned(self) -> int:
        """How many recipes will be measured at most."""
        return prod(len(knob.values) for knob in self.knobs)
