"""The request of a `trajectory` job."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, ValidationInfo, field_validator

from app.contracts.base import broken
from app.contracts.decoding import (
    DECODERS,
    DECODERS_HINT,
    AnyDecoder,
    AnyShaping,
    Decoder,
    Eta,
    MinP,
    TemperatureSampling,
    TopK,
    TopP,
    Typical,
)
from app.contracts.decoding import defaults as all_decoders
from app.contracts.errors import HemostatError
from app.contracts.option import Option
from app.contracts.request import CandidateModel, JobRequest, require_change

MOST_CANDIDATES: Final = 4
# Beside a prompt and its text: a BOS, where the tokenizer puts one.
_BOS: Final = 1
SHAPINGS: Final[tuple[AnyShaping, ...]] = (
    TemperatureSampling(name="temperature"),
    TopP(name="top_p"),
    TopK(name="top_k"),
    MinP(name="min_p"),
    Eta(name="eta"),
    Typical(name="typical"),
)


class TrajectoryRequest(JobRequest):
    """Let reference and candidates continue the same prompts with each decoder, and measure at which token the texts
    first differ.

    Prompts are the first tokens of the documents of `text`.
    """

    reads_windows: ClassVar[bool] = False

    kind: Literal["trajectory"]
    candidates: Annotated[
        tuple[CandidateModel, ...], Field(max_length=MOST_CANDIDATES - 1), Option("--also", shape="candidate")
    ] = Field(default=(), description="up to three more candidates beside `candidate`: four at most")
    decoders: Annotated[
        tuple[AnyDecoder, ...], Field(min_length=1, max_length=len(DECODERS)), Option("--decoder", shape="decoder")
    ] = Field(
        default_factory=all_decoders, description="each is run for every model; the first one decides the verdict"
    )
    prompts: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=32, description="most prompts; each is from another document, each domain in turn"
    )
    prompt_tokens: Annotated[int, Field(ge=1, le=32768)] = Field(
        default=32, description="tokens per prompt; a shorter document is used whole"
    )
    tokens: Annotated[int, Field(ge=2, le=32768)] = Field(default=128, description="most tokens that are generated")
    chat: bool = Field(
        default=False,
        description=(
            "put each prompt into the chat template as the user's message; a conversation ends before its first "
            "answer in any case"
        ),
    )
    shapings: Annotated[tuple[AnyShaping, ...], Field(max_length=16), Option("--shaping", shape="shaping")] = Field(
        default=SHAPINGS,
        description="cuts of decoders after which distances are also computed, from stored hidden states",
    )
    store_text: bool | None = Field(
        default=None,
        description="Keep prompts and generated texts in the report; default: not of hub and file sources.",
    )
    window: Annotated[int, Field(ge=2, le=1_048_576), Option(hidden=True)] = Field(
        default=512, description="not used: a text is as long as its prompt and what was generated"
    )

    @field_validator("decoders")
    @classmethod
    def _once_each(cls, decoders: tuple[Decoder, ...]) -> tuple[Decoder, ...]:
        names = [decoder.name for decoder in decoders]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise broken(
                f"decoder {twice} is given twice: use another job for its other parameters",
                hint=DECODERS_HINT,
            )
        return decoders

    @field_validator("candidates")
    @classmethod
    def _no_copy(cls, candidates: tuple[CandidateModel, ...], info: ValidationInfo) -> tuple[CandidateModel, ...]:
        listed = (info.data.get("candidate"), *candidates)  # without the first where that is at fault itself
        if any(model in listed[:index] for index, model in enumerate(listed)):
            raise ValueError("a candidate is given twice: the same alias and the same recipe")
        return tuple(require_change(one, info.data) for one in candidates)

    def models(self) -> tuple[CandidateModel, ...]:
        """All candidates, `candidate` first."""
        return (self.candidate, *self.candidates)

    @property
    def length(self) -> int:
        """Tokens of the longest text: BOS, prompt, and what is generated. Chat templates add to it."""
        return _BOS + self.prompt_tokens + self.tokens


def pointer_of(index: int) -> str:
    """JSON pointer of the candidate of this index of `models()`."""
    return "/candidate" if index == 0 else f"/candidates/{index - 1}"


@contextmanager
def pointing(index: int) -> Iterator[None]:
    """Errors that point at `/candidate` point at the candidate of this index."""
    try:
        yield
    except HemostatError as error:
        if error.pointer.startswith("/candidate/"):
            error.pointer = pointer_of(index) + error.pointer.removeprefix("/candidate")
        raise
