"""What a job will take, from sizes alone: tokens, bytes and seconds, with what they rest on."""

from dataclasses import dataclass, field

from app.contracts.job import Estimate
from app.contracts.request import JobRequest
from app.kinds.preflight import check_request
from app.kinds.registry import KINDS
from app.models import pace
from app.models.checkpoint import CheckpointInfo, inspect
from app.models.pace import Pace
from app.models.registry import Registry
from app.models.surgery_cost import surgery_cost
from app.models.text_size import measure
from app.settings import Settings

ENGINE_START_S = 15.0


@dataclass
class Cost:
    """What a job takes; its kind changes what it takes beside one pass of both models over its text.

    Bytes are those of hidden states (`store`) and of checkpoints that are made. `seconds` are those of work `here`,
    `starts` those of starting engines.
    """

    registry: Registry
    settings: Settings
    here: Pace
    reference: CheckpointInfo
    candidate: CheckpointInfo
    documents: int | None
    tokens: int
    making: float = 0.0
    store: int = 0
    made: int = 0
    seconds: float = 0.0
    starts: float = ENGINE_START_S
    assumptions: list[str] = field(default_factory=list)

    @property
    def models(self) -> tuple[CheckpointInfo, CheckpointInfo]:
        """Reference and candidate."""
        return self.reference, self.candidate

    @property
    def steps(self) -> Pace:
        """How long recipe steps, fits and swapped parts take."""
        return pace.of_steps(self.here, batch_invariant=self.settings.batch_invariant)

    def passes(self, tokens: float, *infos: CheckpointInfo) -> float:
        """Seconds of one pass of each model over so many tokens, with what becomes of its hidden states."""
        return sum(
            self.here.seconds(pace.SCORED, tokens * info.parameters)
            + self.here.seconds(pace.DIVERGED, tokens * info.vocabulary * info.hidden_size)
            for info in infos
        )

    def add_checkpoints(self, count: int) -> None:
        """So many checkpoints are made, within the budget that the operator gives them; one is there in any case."""
        self.made = max(self.candidate.bytes, min(self.settings.checkpoint_budget_bytes, count * self.candidate.bytes))

    def add_settings(self, planned: int) -> None:
        """So many recipes are made and run over the text, the candidate's own among them."""
        self.seconds += (planned - 1) * (self.passes(self.tokens, self.candidate) + self.making)
        self.add_checkpoints(planned)
        self.assumptions += [
            f"{planned} settings, each made and run over the text once",
            "checkpoints of settings are kept within the checkpoint budget, the least recently used go first",
        ]

    def add_answers(self, tokens: int, drawn: float, rate: float) -> None:
        """Both models read so many tokens more, and each generates `drawn`, at `rate` per second at the usual size."""
        self.store += 2 * self.reference.hidden_size * tokens
        self.tokens += tokens
        self.seconds += self.passes(tokens, *self.models)
        self.seconds += sum(self.here.seconds(pace.drawn(rate), drawn * info.parameters) for info in self.models)


def estimate(request: JobRequest, registry: Registry, settings: Settings, measured: Pace | None = None) -> Estimate:
    """What the job will take, from sizes and from how fast models ran here (`measured`; by the processor without).

    Raises what `check_request` raises: nothing is estimated that would be refused.
    """
    check_request(request, registry, settings)
    here = measured or pace.assumed()
    reference, candidate = (
        inspect(registry.resolve(model.model).checkpoint_path()) for model in (request.reference, request.candidate)
    )
    texts = [measure(text, settings) for text in request.texts.values()]
    documents = None if any(count is None for count, _, _ in texts) else sum(count or 0 for count, _, _ in texts)
    tokens = sum(tokens for _, tokens, _ in texts)
    cost = Cost(registry, settings, here, reference, candidate, documents, tokens)
    cost.making, of_steps = surgery_cost(candidate, request.candidate.recipe, cost.steps, reference, settings)
    cost.store = 2 * reference.hidden_size * tokens
    # The modified checkpoint has the size of its source: its weights are simulated in the source's dtype.
    cost.made = candidate.bytes if request.candidate.recipe else 0
    cost.seconds = cost.making + cost.passes(tokens, reference, candidate)
    cost.assumptions = [
        *dict.fromkeys(how for _, _, how in texts),
        f"both models run over the text at {here.tokens_per_second:.0f} tokens/s for "
        f"{pace.PARAMETERS / 1e6:.1f}M parameters, {here.told}, inversely proportional to their number; "
        "a mixture of experts runs only part of them",
        f"{ENGINE_START_S:.0f} s to start the engine; a warm one and a stored reference save time",
        f"hidden states take 2 bytes x {reference.hidden_size} a token of a model that is stored",
    ]
    KINDS[request.kind].call("cost", request, cost)
    return Estimate(
        kind=request.kind,
        documents=cost.documents,
        tokens=cost.tokens,
        reference_store_bytes=cost.store,
        checkpoint_bytes=cost.made,
        seconds=round(cost.starts + cost.seconds, 1),
        assumptions=tuple(dict.fromkeys([*cost.assumptions, *of_steps, *here.assumptions()])),
    )
