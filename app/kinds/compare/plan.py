"""Whether tool calls can be generated, before a job is queued, and what they cost."""

from pathlib import Path

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import FileText, InlineText, ShippedText
from app.kinds.compare.request import CompareRequest, ToolCallRun
from app.kinds.estimates import ENGINE_START_S, Cost
from app.kinds.preflight import Checked
from app.models import pace
from app.models.texts import check_text
from app.models.tokenizers import has_chat_template

POINTER = "/generate_tool_calls"
# Answers that run together, and tokens per second that they then write, as measured on two cores (SmolLM2, vLLM).
TOGETHER, CPU_TOKENS_PER_SECOND = 16, 240.0


def check(request: CompareRequest, checked: Checked) -> None:
    """Raises `HemostatError` if tool calls are asked for that cannot be generated."""
    run = request.generate_tool_calls
    if run is not None:
        check_tool_calls(run, checked.tokenizer, checked.context)
        check_text(run.text, checked.tokenizer, checked.settings, f"{POINTER}/text", scored=False)


def cost(request: CompareRequest, cost: Cost) -> None:
    """Adds what generated tool calls take."""
    run = request.generate_tool_calls
    if run is not None:
        cost.starts += 2 * ENGINE_START_S
        # At most: every answer at its full length.
        tokens, written = run.prompts * run.max_tokens, pace.drawn(CPU_TOKENS_PER_SECOND)
        cost.seconds += sum(cost.here.seconds(written, tokens * info.parameters) for info in cost.models)
        cost.assumptions.append(assumption(run))


def check_tool_calls(run: ToolCallRun, tokenizer: Path, context: int | None = None) -> None:
    """Returns where the text may hold conversations with tools. `context`: tokens of the shorter of the two models'.

    Raises CHAT_TEMPLATE_MISSING, WINDOW_TOO_LARGE if an answer alone fills the context, and INVALID_REQUEST for a
    text that has no tools for sure.
    """
    if context is not None and run.max_tokens >= context:
        raise HemostatError(
            ErrorCode.WINDOW_TOO_LARGE,
            f"an answer of {run.max_tokens} tokens leaves no place for a prompt in a context of {context}",
            hint="lower max_tokens",
            pointer=f"{POINTER}/max_tokens",
        )
    if not has_chat_template(tokenizer):
        raise HemostatError(
            ErrorCode.CHAT_TEMPLATE_MISSING,
            "`generate_tool_calls` needs conversations, and the tokenizer has no chat template",
            hint="leave `generate_tool_calls` out, or add a chat_template.jinja beside the tokenizer",
            pointer=POINTER,
        )
    text = run.text
    if isinstance(text, InlineText):
        has_tools = any(document.tools for document in text.documents)
        place = f"{POINTER}/text/documents"
    else:
        has_tools = isinstance(text, FileText) or (isinstance(text, ShippedText) and text.corpus == "classes")
        place = f"{POINTER}/text/source"
    if not has_tools:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            "no document of this text has tools, so the models have nothing to call",
            hint="give conversations with tools (inline or file), or leave `generate_tool_calls.text` out: the "
            "shipped ones are used",
            pointer=place,
        )


def assumption(run: ToolCallRun) -> str:
    """How that was found."""
    return (
        f"{run.prompts} prompts at most, answered with {run.max_tokens} tokens by both models at "
        f"{CPU_TOKENS_PER_SECOND:.0f} tokens/s for {pace.PARAMETERS / 1e6:.1f}M parameters, {TOGETHER} at a time"
    )
