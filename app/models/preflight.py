"""Everything that can be refused before a job is queued, and what it will cost. Needs neither torch nor a weight.

Reads folders and file headers: call it from a thread, not from an event loop.
"""

import os
from pathlib import Path

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.job import Estimate
from app.contracts.recipe import Calibrated, Recipe, Step
from app.contracts.requests.attribute import AttributeRequest
from app.contracts.requests.base import JobRequest
from app.contracts.requests.calibrate import CalibrateRequest
from app.contracts.requests.compare import CompareRequest
from app.contracts.requests.mitigate import MitigateRequest
from app.contracts.requests.sweep import SweptRequest
from app.contracts.requests.tasks import TasksRequest
from app.contracts.requests.trajectory import TrajectoryRequest
from app.contracts.text import FileText, HubText, InlineText, SelfText, ShippedText, TextSource
from app.models.attribution import attribution_cost, check_attribution
from app.models.checkpoint import CheckpointInfo, inspect
from app.models.contexts import check_calibration, check_calibration_window, check_window
from app.models.paths import below
from app.models.registry import Registry
from app.models.steps import Beside, check_recipe
from app.models.steps.others import checker
from app.models.sweeping import check_swept, extra_passes
from app.models.tasks.checks import check_answers, check_tasks, tasks_cost
from app.models.tokenizers import compare_tokenizers, has_chat_template
from app.models.tool_calls import assumption, check_tool_calls, seconds_of
from app.models.trajectories import check_trajectory, cost_of
from app.settings import Settings

BYTES_A_TOKEN = 4.0
# Measured on two cores: SmolLM2 (135M parameters) through vLLM.
CPU_TOKENS_PER_SECOND, CPU_PARAMETERS = 1400.0, 134.5e6
CPU_SURGERY_PARAMETERS_PER_SECOND = 5e7
# Products of a token's hidden state with the head, that fitting and testing one calibrator take.
CPU_FIT_PER_SECOND = 4e9
# A treatment's fit: forward passes block by block and second moments, on two cores.
CPU_TREATED_PARAMETER_TOKENS_PER_SECOND = 4e10
# Passes over the text that a mitigate job makes besides its trials.
MITIGATE_PASSES = 3
ENGINE_START_S = 15.0
TEXT_SUFFIXES = frozenset({".txt", ".jsonl"})
SHIPPED = Path(__file__).resolve().parents[2] / "workers" / "text" / "data"


def check_request(request: JobRequest, registry: Registry, settings: Settings) -> None:
    """Returns where the request can be run as far as can be told without its tensors and tokens.

    Raises `HemostatError` with the JSON pointer of the field to blame: UNKNOWN_MODEL, every CHECKPOINT_* code of
    `inspect`, VOCABULARY_MISMATCH, WINDOW_TOO_LARGE, UNKNOWN_MODULE, GROUP_SIZE_MISMATCH, PATTERN_MISMATCH,
    RECIPE_NOT_APPLICABLE, PATH_FORBIDDEN, TEXT_NOT_FOUND, DOCUMENT_TOO_SHORT, DOCUMENT_NOT_TEXT,
    CHAT_TEMPLATE_MISSING, INVALID_REQUEST (two documents of one id, two dtypes).
    """
    reference = registry.resolve(request.reference.model, pointer="/reference/model")
    candidate = registry.resolve(request.candidate.model, pointer="/candidate/model")
    infos = {
        pointer: inspect(entry.checkpoint_path(pointer=pointer), pointer=pointer, name=entry.alias)
        for pointer, entry in (("/reference/model", reference), ("/candidate/model", candidate))
    }
    one, other = infos.values()
    if reference.dtype != candidate.dtype:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"models.toml runs {reference.alias} in {reference.dtype} and {candidate.alias} in {candidate.dtype}",
            hint="give both the same dtype: otherwise rounding is compared, not the models",
            pointer="/candidate/model",
        )
    if one.vocabulary != other.vocabulary:
        raise HemostatError(
            ErrorCode.VOCABULARY_MISMATCH,
            f"{reference.alias} has {one.vocabulary} tokens in its vocabulary, {candidate.alias} has "
            f"{other.vocabulary}: token {min(one.vocabulary, other.vocabulary)} is in one of them only",
            hint="two models can only be compared token by token when both use the same vocabulary",
            pointer="/candidate/model",
        )
    tokenizer = reference.tokenizer_path(pointer="/reference/model")
    if tokenizer != candidate.tokenizer_path(pointer="/candidate/model"):
        compare_tokenizers(
            tokenizer,
            candidate.tokenizer_path(),
            names=(reference.alias, candidate.alias),
            pointer="/candidate/model",
        )
    after = check_recipe(
        other,
        request.candidate.recipe,
        pointer="/candidate/recipe",
        beside=_beside(registry, settings),
        reference=one,
    )
    _check_treatments(request, other, after)
    if not isinstance(request, TrajectoryRequest) and not _turns_context(request):
        check_window(request, one, other, after)
    if isinstance(request, SweptRequest):
        check_swept(
            request,
            other,
            lambda recipe: check_window(
                request,
                one,
                other,
                check_recipe(
                    other, recipe, pointer="/candidate/recipe", beside=_beside(registry, settings), reference=one
                ),
            ),
        )
    for field, text in texts_of(request).items():
        _check_text(text, tokenizer, settings, f"/{field}")
    if isinstance(request, AttributeRequest):
        check_attribution(request, one, after)
    if isinstance(request, TasksRequest):
        check_tasks(request, settings)
        check_answers(request, one, after)
    _check_tool_calls(request, tokenizer, settings, (one, after))
    for index, step in enumerate(request.candidate.recipe):
        if isinstance(step, Calibrated):
            _check_text(step.calibration, tokenizer, settings, f"/candidate/recipe/{index}/calibration")
    if isinstance(request, TrajectoryRequest):
        if request.chat and not has_chat_template(tokenizer):
            raise HemostatError(
                ErrorCode.CHAT_TEMPLATE_MISSING,
                f"the tokenizer of {reference.alias} has no chat template to put prompts into",
                hint="leave chat out, or add a chat_template.jinja beside the tokenizer",
                pointer="/chat",
            )
        check_trajectory(request, registry, lambda one: check_request(one, registry, settings))


def _turns_context(request: JobRequest) -> bool:
    """Whether a knob decides how long a window may be: what its field has in the recipe is a placeholder then."""
    steps = request.candidate.recipe or ()
    return isinstance(request, SweptRequest) and any(
        str(getattr(steps[knob.step], "type", "")).startswith("context.")
        for knob in request.knobs
        if knob.step < len(steps)
    )


def _beside(registry: Registry, settings: Settings) -> Beside:
    """What is looked at for each step beside shapes: an adapter or other model, and calibration windows."""
    check_others = checker(registry, settings)

    def check(info: CheckpointInfo, step: Step, pointer: str) -> None:
        check_others(info, step, pointer)
        check_calibration_window(info, step, pointer)

    return check


def _check_treatments(request: JobRequest, *infos: CheckpointInfo) -> None:
    """Calibration windows of treatments must fit the candidate before its recipe and after it, where one is read."""
    if isinstance(request, MitigateRequest) and request.reads_text:
        contexts = [info.max_position for info in infos if info.max_position is not None]
        check_calibration(request.calibration_window, min(contexts, default=None), "/calibration_window")


def _check_tool_calls(
    request: JobRequest, tokenizer: Path, settings: Settings, infos: tuple[CheckpointInfo, CheckpointInfo]
) -> None:
    if not isinstance(request, CompareRequest) or request.generate_tool_calls is None:
        return
    contexts = [info.max_position for info in infos if info.max_position is not None]
    check_tool_calls(request.generate_tool_calls, tokenizer, min(contexts, default=None))
    if isinstance(request.generate_tool_calls.text, FileText):
        _text_files(request.generate_tool_calls.text, settings, "/generate_tool_calls/text")


def texts_of(request: JobRequest) -> dict[str, TextSource]:
    """Every text source of a request, by its field."""
    texts: dict[str, TextSource] = {"text": request.text}
    if isinstance(request, CalibrateRequest) and (test := text_for_test(request)) is not None:
        texts["test_text"] = test
    if isinstance(request, MitigateRequest):
        if request.test_text is not None:
            texts["test_text"] = request.test_text
        texts["calibration"] = request.calibration
    return texts


def scored_texts_of(request: JobRequest) -> list[TextSource]:
    """Those of the texts that both models are run over."""
    return [text for field, text in texts_of(request).items() if field != "calibration"]


def text_for_test(request: CalibrateRequest) -> TextSource | None:
    """Where the test documents come from; None: a share of those of `text`."""
    if request.test_text is not None:
        return request.test_text
    if isinstance(request.text, ShippedText) and request.text.corpus == "calibration":
        return ShippedText(source="shipped", corpus="evaluation")
    return None


def estimate(request: JobRequest, registry: Registry, settings: Settings) -> Estimate:
    """What the job will take, from sizes alone. Raises what `check_request` raises: nothing is estimated that would be
    refused."""
    check_request(request, registry, settings)
    infos = [
        inspect(registry.resolve(model.model).checkpoint_path()) for model in (request.reference, request.candidate)
    ]
    measured = [_measure(text, settings) for text in scored_texts_of(request)]
    documents = None if any(count is None for count, _, _ in measured) else sum(count or 0 for count, _, _ in measured)
    tokens = sum(tokens for _, tokens, _ in measured)
    how = "; ".join(dict.fromkeys(how for _, _, how in measured))
    store = 2 * infos[0].hidden_size * tokens * (2 if isinstance(request, CalibrateRequest) else 1)
    made = _bytes_made(infos[1]) if request.candidate.recipe else 0
    making, of_steps = _surgery(infos[1], request.candidate.recipe or ())
    seconds = (
        ENGINE_START_S
        + making
        + sum(tokens / (CPU_TOKENS_PER_SECOND * CPU_PARAMETERS / info.parameters) for info in infos)
    )
    extra: tuple[str, ...] = ()
    whose = "the reference's hidden states"
    if isinstance(request, CalibrateRequest):
        seconds += tokens * len(request.calibrators) * infos[0].vocabulary * infos[0].hidden_size / CPU_FIT_PER_SECOND
        whose = "each model's hidden states"
        extra = (
            f"fitting and testing {len(request.calibrators)} calibrators, as measured on a 2-core CPU, in proportion "
            "to tokens, vocabulary and hidden size",
        )
    if isinstance(request, SweptRequest):
        more = extra_passes(request)
        seconds += more * tokens / (CPU_TOKENS_PER_SECOND * CPU_PARAMETERS / infos[1].parameters)
        seconds += more * making
        made = min(settings.checkpoint_budget_bytes, request.planned * _bytes_made(infos[1]))
        extra = (
            f"{request.planned} settings, each made and run over the text once",
            "checkpoints of settings are kept within the checkpoint budget, the least recently used go first",
        )
    if isinstance(request, CompareRequest) and request.generate_tool_calls is not None:
        seconds += 2 * ENGINE_START_S + seconds_of(request.generate_tool_calls, [info.parameters for info in infos])
        extra = (assumption(request.generate_tool_calls),)
    if isinstance(request, MitigateRequest):
        # Candidate, parts of it, and trials over a part of the text; the front over the rest.
        passes = MITIGATE_PASSES + request.trials / 2
        seconds += passes * tokens / (CPU_TOKENS_PER_SECOND * CPU_PARAMETERS / infos[1].parameters)
        fitted = request.calibration_windows * request.calibration_window
        seconds += request.trials * infos[1].parameters * (1 / CPU_SURGERY_PARAMETERS_PER_SECOND)
        seconds += request.trials * fitted / 2 * infos[1].parameters / CPU_TREATED_PARAMETER_TOKENS_PER_SECOND
        made = min(settings.checkpoint_budget_bytes, (request.trials + 1) * _bytes_made(infos[1]))
        extra = (
            f"{request.trials} trials, a third of them in full: each makes a checkpoint and fits it on text, in "
            "proportion to parameters and tokens; training of a repair takes time besides",
            "checkpoints of trials are kept within the checkpoint budget, the least recently used go first",
        )
    if isinstance(request, AttributeRequest):
        attribution = attribution_cost(request, (infos[0], infos[1]), tokens)
        per_second = CPU_TOKENS_PER_SECOND * CPU_PARAMETERS / infos[0].parameters
        seconds += attribution.passes * attribution.tokens / per_second
        extra = attribution.told
    if isinstance(request, TrajectoryRequest):
        others = [inspect(registry.resolve(model.model).checkpoint_path()) for model in request.candidates]
        cost = cost_of(
            request,
            [*infos, *others],
            documents,
            scoring_tokens_per_second=CPU_TOKENS_PER_SECOND,
            reference_parameters=CPU_PARAMETERS,
        )
        surgery = [
            _surgery(info, model.recipe or ())
            for info, model in zip([*infos[1:], *others], request.models(), strict=True)
        ]
        return Estimate(
            kind=request.kind,
            documents=cost.prompts,
            tokens=cost.tokens,
            reference_store_bytes=2 * infos[0].hidden_size * cost.scored,
            checkpoint_bytes=sum(
                _bytes_made(info)
                for info, model in zip([*infos[1:], *others], request.models(), strict=True)
                if model.recipe
            ),
            seconds=round(
                2 * ENGINE_START_S * (1 + len(request.models())) + sum(one for one, _ in surgery) + cost.seconds, 1
            ),
            assumptions=(*cost.assumptions, *dict.fromkeys(told for _, lines in surgery for told in lines)),
        )
    if isinstance(request, TasksRequest):
        asked, drawing, extra = tasks_cost(request, settings)
        store += 2 * infos[0].hidden_size * asked
        tokens += asked
        seconds += sum(
            (asked / CPU_TOKENS_PER_SECOND + drawing / len(infos)) * info.parameters / CPU_PARAMETERS for info in infos
        )
    return Estimate(
        kind=request.kind,
        documents=documents,
        tokens=tokens,
        reference_store_bytes=store,
        checkpoint_bytes=made,
        seconds=round(seconds, 1),
        assumptions=(
            how,
            f"both models are run over the text at {CPU_TOKENS_PER_SECOND:.0f} tokens/s for "
            f"{CPU_PARAMETERS / 1e6:.1f}M parameters, as measured on a 2-core CPU, in inverse proportion to the "
            "number of parameters; a GPU is much faster, and a mixture of experts runs only part of them",
            f"{ENGINE_START_S:.0f} s to start the engine; a warm one and a stored reference save time",
            f"{whose} take 2 bytes x {infos[0].hidden_size} a token",
            *extra,
            *of_steps,
        ),
    )


def _surgery(info: CheckpointInfo, recipe: Recipe) -> tuple[float, tuple[str, ...]]:
    """(seconds in which a recipe makes its checkpoint, what is assumed of them)."""
    if not recipe:
        return 0.0, ()
    seconds = info.parameters / CPU_SURGERY_PARAMETERS_PER_SECOND
    looking = [step for step in recipe if isinstance(step, Calibrated) and step.reads_text]
    if not looking:
        return seconds, ()
    tokens = sum(step.calibration_windows * step.calibration_window for step in looking)
    steps = "a step that looks" if len(looking) == 1 else f"{len(looking)} steps that look"
    return seconds + tokens * info.parameters / CPU_TREATED_PARAMETER_TOKENS_PER_SECOND, (
        f"{steps} at {tokens:,} calibration tokens, in proportion to tokens and parameters, as measured on a 2-core "
        "CPU; what a step trains (tuning, recovery, distillation) takes time besides",
    )


def _bytes_made(info: CheckpointInfo) -> int:
    """The modified checkpoint has the size of its source: its weights are simulated in the source's dtype."""
    return info.bytes


def _check_text(text: TextSource, tokenizer: Path, settings: Settings, field: str) -> None:
    if isinstance(text, InlineText):
        _check_documents(text, tokenizer, field)
    elif isinstance(text, FileText):
        _text_files(text, settings, field)


def _check_documents(text: InlineText, tokenizer: Path, field: str) -> None:
    seen: dict[str, int] = {}
    for index, document in enumerate(text.documents):
        pointer = f"{field}/documents/{index}"
        first = seen.setdefault(document.id, index)
        if first != index:
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"documents {first} and {index} have the same id {document.id!r}",
                hint="give every document an id of its own",
                pointer=f"{pointer}/id",
            )
        if document.text is not None:
            if _utf8_bytes(document.text, f"{pointer}/text") < 2:
                raise _too_short(document.id, "has fewer than two bytes of text", f"{pointer}/text")
            continue
        said = 0
        for turn, message in enumerate(document.messages or ()):
            length = _utf8_bytes(message.content, f"{pointer}/messages/{turn}/content")
            said += length + len(message.tool_calls or ()) if message.role == "assistant" else 0
        if not has_chat_template(tokenizer):
            raise HemostatError(
                ErrorCode.CHAT_TEMPLATE_MISSING,
                f"document {document.id!r} is a conversation, and the tokenizer has no chat template",
                hint="send the conversation as text, or use a model whose tokenizer has a chat template",
                pointer=f"{pointer}/messages",
            )
        if said == 0 and document.scored == "assistant":
            raise _too_short(document.id, "has no word of the assistant's, and nothing else is scored", pointer)


def _too_short(document: str, what: str, pointer: str) -> HemostatError:
    return HemostatError(
        ErrorCode.DOCUMENT_TOO_SHORT,
        f"document {document!r} {what}",
        hint="leave it out, or join it with another: a single token has no next token to predict",
        pointer=pointer,
    )


def _utf8_bytes(text: str, pointer: str) -> int:
    """Length in UTF-8; raises DOCUMENT_NOT_TEXT for NUL bytes and lone surrogates, naming the position alone."""
    if "\0" in text:
        raise HemostatError(
            ErrorCode.DOCUMENT_NOT_TEXT,
            f"there is a NUL byte at character {text.index(chr(0))}",
            hint="remove it; it is no part of a text",
            pointer=pointer,
        )
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise HemostatError(
            ErrorCode.DOCUMENT_NOT_TEXT,
            f"there is a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}",
            hint="send whole characters: a surrogate is half of one",
            pointer=pointer,
        ) from None


def _text_files(text: FileText, settings: Settings, field: str = "/text") -> list[Path]:
    """The files that a file source stands for; links are followed only where they stay below the root."""
    if settings.text_root is None:
        raise HemostatError(
            ErrorCode.PATH_FORBIDDEN,
            "this service reads no text files: no text root is set",
            hint="the operator sets HEMOSTAT_TEXT_ROOT; or send the documents inline",
            pointer=f"{field}/path",
        )
    path = below(settings.text_root, text.path, pointer=f"{field}/path")
    if path.is_file() and path.suffix.lower() not in TEXT_SUFFIXES:
        raise HemostatError(
            ErrorCode.DOCUMENT_NOT_TEXT,
            f"{text.path!r} is neither a .txt nor a .jsonl file",
            hint="name a .txt file (one document), a .jsonl file (one document a line), or a folder of them",
            pointer=f"{field}/path",
        )
    found = [path] if path.is_file() else []
    if path.is_dir():
        root = settings.text_root.resolve()
        for folder, folders, names in os.walk(path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                if not name.startswith(".") and Path(name).suffix.lower() in TEXT_SUFFIXES:
                    relative = (Path(folder) / name).relative_to(root).as_posix()
                    found.append(below(root, relative, pointer=f"{field}/path"))
    found = [file for file in found if file.is_file()]
    if not found:
        raise HemostatError(
            ErrorCode.TEXT_NOT_FOUND,
            f"there is no .txt or .jsonl file at {text.path!r}",
            hint="the path is relative to the text root; it may be a file or a folder",
            pointer=f"{field}/path",
        )
    return found


def _measure(text: TextSource, settings: Settings) -> tuple[int | None, int, str]:
    """(documents, tokens, how they were found)."""
    rule = f"{BYTES_A_TOKEN:.0f} bytes of text a token"
    if isinstance(text, SelfText):
        return None, text.tokens, "as many tokens as the self corpus asks for; sampling them takes time besides"
    if isinstance(text, HubText):
        tokens = 500 * text.documents
        return text.documents, tokens, "500 tokens a document: a hub data set is not read before the job runs"
    if isinstance(text, InlineText):
        size = sum(
            len(part.encode())
            for document in text.documents
            for part in ([document.text] if document.text is not None else [m.content for m in document.messages or ()])
        )
        return len(text.documents), _tokens(size), rule
    if isinstance(text, FileText):
        files = _text_files(text, settings)
        plain = all(file.suffix.lower() == ".txt" for file in files)
        return len(files) if plain else None, _tokens(sum(file.stat().st_size for file in files)), rule
    return _measure_shipped(text, rule)


def _measure_shipped(text: ShippedText, rule: str) -> tuple[int | None, int, str]:
    file = SHIPPED / f"{text.corpus}.jsonl"
    if not file.is_file():
        return text.documents, 300 * (text.documents or 100), "300 tokens a document of the shipped corpus"
    data = file.read_bytes()
    lines = data.count(b"\n")
    documents = min(text.documents or lines, lines)
    return documents, _tokens(len(data) * documents // max(lines, 1)), rule


def _tokens(size: int) -> int:
    return max(2, round(size / BYTES_A_TOKEN))
