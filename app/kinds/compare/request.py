"""The request of a `compare` job."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from app.contracts.base import Contract
from app.contracts.option import Option
from app.contracts.request import JobRequest
from app.contracts.text import ShippedText, TextSource


class ToolCallRun(Contract):
    """Let both models write tool calls, greedily and without any help of a grammar, and count the valid ones."""

    text: TextSource = Field(
        default_factory=lambda: ShippedText(source="shipped", corpus="classes"),
        description="conversations with `tools`: each is a prompt up to the turn where the assistant first calls one",
    )
    prompts: Annotated[int, Field(ge=1, le=1000)] = Field(default=64, description="at most so many, the first ones")
    max_tokens: Annotated[int, Field(ge=8, le=4096)] = Field(default=128, description="tokens of an answer, at most")


class CompareRequest(JobRequest):
    """Compare the next-token distributions of two models over one text."""

    beyond_context: ClassVar[bool] = True

    kind: Literal["compare"]
    precision: Literal["fast", "float32"] = Field(
        default="fast", description="Arithmetic of the divergence: bf16 products in difference form (fast), or float32."
    )
    store_text: bool | None = Field(
        default=None,
        description="Keep the text around the worst tokens in the report; default: not of hub and file sources.",
    )
    generate_tool_calls: Annotated[ToolCallRun | None, Option("--generate-tool-calls", sets={})] = Field(
        default=None,
        description="Also let both models write tool calls, and compare the shares of valid ones; `true`: with "
        "the defaults.",
    )
