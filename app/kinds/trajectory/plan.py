"""What of a trajectory job can be refused before it is queued, and what it will cost; needs no torch and no weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

from app.contracts.blocks import ENGINE_SECTIONS
from app.contracts.decoding import defaults, rows_of, runs_in_vllm
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import InlineText, Message
from app.kinds.estimates import ENGINE_START_S, Cost
from app.kinds.preflight import Checked, check_request
from app.kinds.trajectory.request import TrajectoryRequest, pointer_of, pointing
from app.models import pace
from app.models.checkpoint import CheckpointInfo, inspect
from app.models.steps import check_recipe
from app.models.surgery_cost import surgery_cost
from app.models.tokenizers import has_chat_template

# Taken for two cores and 134.5M parameters: tokens/s of vLLM at 32 streams, and rows/s of the loop.
CPU_VLLM_TOKENS_PER_SECOND: Final = 300.0
CPU_LOOP_ROWS_PER_SECOND: Final = 200.0


class _Promptable(Protocol):
    """A document of a request, or one on its way to windows."""

    @property
    def id(self) -> str: ...
    @property
    def domain(self) -> str: ...
    @property
    def text(self) -> str | None: ...
    @property
    def messages(self) -> tuple[Message, ...] | None: ...


_Document = TypeVar("_Document", bound=_Promptable)


def spread_over_domains(documents: Sequence[_Document], count: int) -> list[_Document]:
    """The first `count` documents, each domain in turn; all of them where there are fewer."""
    waiting: dict[str, list[_Document]] = {}
    for document in documents:
        waiting.setdefault(document.domain, []).append(document)
    chosen: list[_Document] = []
    depth = 0
    while len(chosen) < min(count, len(documents)):
        chosen += [listed[depth] for listed in waiting.values() if depth < len(listed)]
        depth += 1
    return chosen[:count]


def opening(messages: Sequence[Message]) -> Sequence[Message]:
    """The messages before the first answer: what a conversation gives as its prompt. Empty if an answer is first."""
    first = next((index for index, message in enumerate(messages) if message.role == "assistant"), len(messages))
    return messages[:first]


def check_opening(document: _Promptable, pointer: str, *, chat: bool) -> None:
    """Raises DOCUMENT_TOO_SHORT for a document that gives an empty prompt. That is a conversation without a message, or
    with blank ones alone, before its first answer, or a blank text that is to be a user's message. `pointer` is the
    document's in the request, "" if it is not there."""
    if document.messages is None:
        if chat and document.text is not None and not document.text.strip():
            raise empty_prompt(document.id, "has nothing but white space", pointer and f"{pointer}/text")
        return
    before = opening(document.messages)
    if not before:
        place = pointer and f"{pointer}/messages/0/role"
        raise empty_prompt(document.id, "has no message before its first answer", place)
    if not any(message.content.strip() for message in before):
        place = pointer and f"{pointer}/messages/{len(before) - 1}/content"
        raise empty_prompt(document.id, "has nothing but white space before its first answer", place)


def empty_prompt(name: str, what: str, pointer: str) -> HemostatError:
    """The error for a document that gives no prompt."""
    return HemostatError(
        ErrorCode.DOCUMENT_TOO_SHORT,
        f"document {name!r} {what}: its prompt would be empty",
        hint="leave it out, or give it text",
        pointer=pointer,
    )


def check(request: TrajectoryRequest, checked: Checked) -> None:
    """Raises `HemostatError` if a candidate cannot write on from the prompts.

    That is what `check_request` raises of each candidate, with its pointer. DOCUMENT_TOO_SHORT for an empty prompt.
    WINDOW_TOO_LARGE for prompt and tokens that exceed a context. RECIPE_NOT_APPLICABLE for a decoder that runs in
    transformers and a candidate whose activations, keys or values are simulated. INVALID_REQUEST for a decoder that
    runs in vLLM and a reference that is split over several devices.
    """
    if request.chat and not has_chat_template(checked.tokenizer):
        raise HemostatError(
            ErrorCode.CHAT_TEMPLATE_MISSING,
            f"the tokenizer of {request.reference.model} has no chat template to put prompts into",
            hint="leave `chat` out, or add a chat_template.jinja beside the tokenizer",
            pointer="/chat",
        )
    if isinstance(request.text, InlineText):  # others are read by the worker alone
        documents = request.text.documents
        places = {document.id: index for index, document in enumerate(documents)}
        for document in spread_over_domains(documents, request.prompts):
            check_opening(document, f"/text/documents/{places[document.id]}", chat=request.chat)
    registry, reference = checked.registry, checked.reference
    if registry.resolve(request.reference.model).sized(checked.settings).ranks > 1:
        _refuse_split(request)
    for index, model in enumerate(request.models()):
        if index:
            with pointing(index):
                one = request.model_copy(update={"candidate": model, "candidates": ()})
                check_request(one, registry, checked.settings)
        info = inspect(registry.resolve(model.model).checkpoint_path())
        after = check_recipe(info, model.recipe, pointer=f"{pointer_of(index)}/recipe", reference=reference)
        _check_length(request, after, model.model)
        if ENGINE_SECTIONS & after.config.keys():
            _check_decoders(request, model.model)
    _check_length(request, reference, request.reference.model)
    if ENGINE_SECTIONS & reference.config.keys():
        _check_decoders(request, request.reference.model)


def _check_length(request: TrajectoryRequest, info: CheckpointInfo, alias: str) -> None:
    needed = request.prompt_tokens + request.tokens
    if info.max_position is not None and needed > info.max_position:
        raise HemostatError(
            ErrorCode.WINDOW_TOO_LARGE,
            f"a prompt of {request.prompt_tokens} tokens and {request.tokens} more are longer than the context of "
            f"{alias}, {info.max_position} tokens",
            hint=f"give at most {info.max_position} as `prompt_tokens` and `tokens` together",
            pointer="/tokens",
        )


def _check_decoders(request: TrajectoryRequest, alias: str) -> None:
    for index, decoder in enumerate(request.decoders):
        if not runs_in_vllm(decoder):
            raise HemostatError(
                ErrorCode.RECIPE_NOT_APPLICABLE,
                f"{decoder.name} runs in transformers, which does not support the run-time changes of {alias}: "
                "quantized activations, keys or values, or block corrections",
                hint="use the decoders greedy, temperature, top_p, top_k and min_p, which run in vLLM",
                pointer=f"/decoders/{index}",
            )


def _refuse_split(request: TrajectoryRequest) -> None:
    """Both models run as the reference does, and a decoder in vLLM draws in the model's only process."""
    others = ", ".join(decoder.name for decoder in defaults() if not runs_in_vllm(decoder))
    for index, decoder in enumerate(request.decoders):
        if runs_in_vllm(decoder):
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"{decoder.name} runs in vLLM on one device, but {request.reference.model} is split over several",
                hint=f"run the model on one device; decoders that load it whole with transformers: {others}",
                pointer=f"/decoders/{index}",
            )


def cost(request: TrajectoryRequest, cost: Cost) -> None:
    """Prompts, generated texts and their scoring take the place of passes over the text."""
    others = [inspect(cost.registry.resolve(model.model).checkpoint_path()) for model in request.candidates]
    infos = [*cost.models, *others]
    prompts = min(request.prompts, cost.documents or request.prompts)
    texts = prompts * len(request.decoders)
    length = request.prompt_tokens + request.tokens
    seconds, scored = 0.0, 0
    for index, info in enumerate(infos):
        for decoder in request.decoders:
            rows = rows_of(decoder) * prompts * request.tokens
            rate = CPU_VLLM_TOKENS_PER_SECOND if runs_in_vllm(decoder) else CPU_LOOP_ROWS_PER_SECOND
            seconds += cost.here.seconds(pace.drawn(rate), rows * info.parameters)
        # The reference scores everybody's texts, a candidate its own and the reference's.
        own = texts * length * (len(infos) if index == 0 else 2)
        scored += own
        seconds += cost.passes(own, info)
    candidates = list(zip(infos[1:], request.models(), strict=True))
    surgery = [
        surgery_cost(info, model.recipe, cost.steps, cost.reference, cost.settings) for info, model in candidates
    ]
    cost.documents, cost.tokens = prompts, texts * request.tokens * len(infos)
    cost.store = 2 * cost.reference.hidden_size * scored
    cost.made = sum(info.bytes for info, model in candidates if model.recipe)
    cost.starts = 2 * ENGINE_START_S * len(infos)
    cost.seconds = seconds + sum(making for making, _ in surgery)
    cost.assumptions = [
        f"{prompts} prompts, {len(request.decoders)} decoders, {len(infos)} models, every text of "
        f"{request.tokens} tokens: {cost.tokens} tokens are generated, {scored} scored",
        f"generation at {CPU_VLLM_TOKENS_PER_SECOND:.0f} tokens/s in vLLM and {CPU_LOOP_ROWS_PER_SECOND:.0f} "
        "rows/s in the loop, taken for a 2-core CPU and 134.5M parameters",
        "a row of the loop is a beam, or a token that contrastive search looks at",
        "texts that end early, or are the same as others, take less",
        *(told for _, lines in surgery for told in lines),
    ]
