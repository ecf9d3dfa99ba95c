"""What a job will take, from sizes alone: tokens, bytes and seconds, with what they rest on."""

from pathlib import Path

from app.contracts.job import Estimate
from app.contracts.request import JobRequest, SweptRequest
from app.contracts.text import FileText, HubText, InlineText, SelfText, ShippedText, TextSource
from app.kinds.attribute.request import AttributeRequest
from app.kinds.calibrate.request import CalibrateRequest
from app.kinds.compare.request import CompareRequest
from app.kinds.mitigate.request import MitigateRequest
from app.kinds.sweep.request import SweepRequest
from app.kinds.tasks.request import TasksRequest
from app.kinds.trajectory.request import TrajectoryRequest
from app.models import pace
from app.models.attribution import attribution_cost
from app.models.checkpoint import CheckpointInfo, inspect
from app.models.pace import Pace
from app.models.preflight import check_request
from app.models.registry import Registry
from app.models.searching import search_cost
from app.models.steps import check_recipe
from app.models.surgery_cost import surgery_cost
from app.models.sweeping import extra_passes
from app.models.tasks.checks import tasks_cost
from app.models.texts import scored_texts_of, text_files
from app.models.tool_calls import assumption, seconds_of
from app.models.trajectories import cost_of
from app.settings import Settings

BYTES_A_TOKEN = 4.0
# Products of a token's hidden state with the head, that fitting and testing one calibrator take.
CPU_FIT_PER_SECOND = 4e9
ENGINE_START_S = 15.0
SHIPPED = Path(__file__).resolve().parents[2] / "workers" / "text" / "data"


def estimate(request: JobRequest, registry: Registry, settings: Settings, measured: Pace | None = None) -> Estimate:
    """What the job will take, from sizes and from how fast models ran here (`measured`; by the processor without).

    Raises what `check_request` raises: nothing is estimated that would be refused.
    """
    check_request(request, registry, settings)
    here = measured or pace.assumed()
    infos = [
        inspect(registry.resolve(model.model).checkpoint_path()) for model in (request.reference, request.candidate)
    ]
    texts = [_measure(text, settings) for text in scored_texts_of(request)]
    documents = None if any(count is None for count, _, _ in texts) else sum(count or 0 for count, _, _ in texts)
    if isinstance(request, TrajectoryRequest):
        return _of_trajectory(request, registry, infos, documents, here)
    tokens = sum(tokens for _, tokens, _ in texts)
    how = "; ".join(dict.fromkeys(how for _, _, how in texts))
    store = 2 * infos[0].hidden_size * tokens * (2 if isinstance(request, CalibrateRequest) else 1)
    made = _bytes_made(infos[1]) if request.candidate.recipe else 0
    making, of_steps = surgery_cost(infos[1], request.candidate.recipe or (), here, infos[0])
    starts = ENGINE_START_S
    # Of the machine that everything was measured on.
    seconds = making + _passes(tokens, *infos)
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
        seconds += _passes(more * tokens, infos[1])
        seconds += more * making
        made = min(settings.checkpoint_budget_bytes, request.planned * _bytes_made(infos[1]))
        extra = (
            f"{request.planned} settings, each made and run over the text once",
            "checkpoints of settings are kept within the checkpoint budget, the least recently used go first",
        )
    if isinstance(request, SweepRequest) and request.tasks:
        asked, drawing, told = tasks_cost(request, settings)
        store += 2 * infos[0].hidden_size * asked
        tokens += asked
        seconds += _answering(asked, drawing, infos)
        extra = (
            *extra,
            "tasks are answered by the reference and by one setting; each weaker one that must be asked takes a "
            "candidate's part of that again",
            *told,
        )
    if isinstance(request, CompareRequest) and request.generate_tool_calls is not None:
        starts += 2 * ENGINE_START_S
        seconds += seconds_of(request.generate_tool_calls, [info.parameters for info in infos])
        extra = (assumption(request.generate_tool_calls),)
    if isinstance(request, MitigateRequest):
        searching, extra = search_cost(request, tokens, infos[1], infos[0])
        seconds += searching
        made = min(settings.checkpoint_budget_bytes, (request.trials + 1) * _bytes_made(infos[1]))
    if isinstance(request, AttributeRequest):
        made_of = check_recipe(infos[1], request.candidate.recipe, pointer="/candidate/recipe", reference=infos[0])
        attribution = attribution_cost(request, (infos[0], made_of), tokens, reference_parameters=pace.PARAMETERS)
        seconds += attribution.seconds
        extra = attribution.told
    if isinstance(request, TasksRequest):
        asked, drawing, extra = tasks_cost(request, settings)
        store += 2 * infos[0].hidden_size * asked
        tokens += asked
        seconds += _answering(asked, drawing, infos)
    return Estimate(
        kind=request.kind,
        documents=documents,
        tokens=tokens,
        reference_store_bytes=store,
        checkpoint_bytes=made,
        seconds=round(starts + here.slower * seconds, 1),
        assumptions=(
            how,
            f"both models are run over the text at {here.tokens_per_second:.0f} tokens/s for "
            f"{pace.PARAMETERS / 1e6:.1f}M parameters, {here.told}, in inverse proportion to the number of parameters; "
            "a mixture of experts runs only part of them",
            f"{ENGINE_START_S:.0f} s to start the engine; a warm one and a stored reference save time",
            f"{whose} take 2 bytes x {infos[0].hidden_size} a token",
            *extra,
            *of_steps,
            *_told(here),
        ),
    )


def _of_trajectory(
    request: TrajectoryRequest, registry: Registry, infos: list[CheckpointInfo], documents: int | None, here: Pace
) -> Estimate:
    """`infos`: the reference's and the first candidate's."""
    others = [inspect(registry.resolve(model.model).checkpoint_path()) for model in request.candidates]
    cost = cost_of(
        request,
        [*infos, *others],
        documents,
        scoring_tokens_per_second=pace.TOKENS_PER_SECOND,
        reference_parameters=pace.PARAMETERS,
    )
    candidates = list(zip([*infos[1:], *others], request.models(), strict=True))
    surgery = [surgery_cost(info, model.recipe or (), here, infos[0]) for info, model in candidates]
    return Estimate(
        kind=request.kind,
        documents=cost.prompts,
        tokens=cost.tokens,
        reference_store_bytes=2 * infos[0].hidden_size * cost.scored,
        checkpoint_bytes=sum(_bytes_made(info) for info, model in candidates if model.recipe),
        seconds=round(
            2 * ENGINE_START_S * (1 + len(candidates)) + here.slower * (sum(one for one, _ in surgery) + cost.seconds),
            1,
        ),
        assumptions=(
            *cost.assumptions,
            *dict.fromkeys(told for _, lines in surgery for told in lines),
            *_told(here),
        ),
    )


def _passes(tokens: float, *infos: CheckpointInfo) -> float:
    """Seconds of one pass of each model, on the machine that everything was measured on."""
    return sum(tokens * info.parameters / (pace.TOKENS_PER_SECOND * pace.PARAMETERS) for info in infos)


def _answering(asked: float, drawing: float, infos: list[CheckpointInfo]) -> float:
    """Seconds of both models' answers: of reading so many tokens, and `drawing`, of both, for the usual size."""
    return sum(_passes(asked, info) + drawing / len(infos) * info.parameters / pace.PARAMETERS for info in infos)


def _told(here: Pace) -> tuple[str, ...]:
    """How rates that were measured elsewhere become seconds here."""
    if here.slower == 1:
        return ("rates were measured on a 2-core CPU; a GPU is much faster",)
    times = here.slower if here.slower > 1 else 1 / here.slower
    return (
        f"all work is taken to be {times:.2g} times {'slower' if here.slower > 1 else 'faster'} here than on the "
        f"2-core CPU that rates were measured on ({pace.TOKENS_PER_SECOND:.0f} tokens/s over a text)",
    )


def _bytes_made(info: CheckpointInfo) -> int:
    """The modified checkpoint has the size of its source: its weights are simulated in the source's dtype."""
    return info.bytes


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
        files = text_files(text, settings)
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
