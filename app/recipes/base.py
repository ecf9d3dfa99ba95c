"""What steps of several families share: where they apply, how strong they are, what text they look at."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final, Literal, NamedTuple

from pydantic import Field, model_validator

from app.contracts.base import Contract, broken
from app.contracts.text import ShippedText, TextSource
from app.recipes.strength import BITS, FALLING, RISING, SHARE, UNKNOWN

Bits = Annotated[int, Field(ge=2, le=8), BITS]
# A wider group shares one scale among more weights; null is the whole row.
GroupSize = Annotated[int, Field(ge=1, le=65536), RISING]
Form = Literal["simulated", "packed"]
Sparsity = Annotated[float, Field(gt=0, lt=1), SHARE]
Pattern = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,2}:[1-9][0-9]{0,2}$")]
Allocation = Literal["uniform", "owl"]
Rank = Annotated[int, Field(ge=1, le=65536)]
Role = Literal["quantizer", "pruner", "factorizer", "extender", "context", "adjuster", "merger", "repair"]
# States of the whole text that a walk keeps at most: its own and the reference's. One with gradients also keeps what a
# block should give, the gradients, and the states before each block.
BORDERS: Final = 2
MOST_WINDOWS: Final = 4096
Seed = Annotated[int, Field(ge=0, lt=2**63), UNKNOWN]


class Idle(NamedTuple):
    """Fields of a step that decide nothing beside the fields `because`: why, and what to do to have them decide."""

    fields: tuple[str, ...]
    because: tuple[str, ...]
    why: str
    hint: str


def percent(share: float | None) -> str:
    """A share with three digits: `12.5 %`."""
    return f"{100 * (share or 0):#.3g} %"


def counted(number: int, noun: str) -> str:
    """`1 layer`, `2 layers`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def per_group(size: int | None) -> str:
    """What shares a scale."""
    return "per channel" if size is None else f"group {size}"


def layers_in_words(layers: Sequence[int]) -> str:
    """`layer 12`, `layers 0–2, 7`."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    told = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)
    return f"layer{'' if len(layers) == 1 else 's'} {told}"


class Step(Contract):
    """What any step may say: where it applies. What it is for the diagnosis and the mitigation is on the class:

    role         what it does to a model; every type of step has one
    graded_by    the field that may differ from layer to layer. None: no field may
    replaced_by  the mitigation that may stand in its place, which then has its `bits` or `sparsity`. None: none
    runner       the class of the worker that does it, "module:Class"
    streamed     whether the runner changes one weight at a time and needs nothing else
                 (`workers.surgery.steps.Runner`). Others are given the checkpoint
                 (`workers.surgery.step_run.WholeStep`)
    rules        the module of `app.models.steps` that checks it. None: that of its family
    title        its method's name in `words`
    variants     other runners, not streamed, by the value of `form`, `allocation` or `activations` that takes them
    """

    role: ClassVar[Role]
    graded_by: ClassVar[Literal["bits", "sparsity"] | None] = None
    replaced_by: ClassVar[str | None] = None
    runner: ClassVar[str]
    title: ClassVar[str]
    rules: ClassVar[str | None] = None
    streamed: ClassVar[bool] = False
    # Whether it keeps E[x xᵀ] of what layers are given.
    squares: ClassVar[bool] = False
    # How often it goes through its weights beside the walk, how many products it makes of each with a second moment of
    # its inputs, and how many times I³ multiplications it takes to factorize that.
    weighed: ClassVar[float] = 0.0
    products: ClassVar[float] = 0.0
    factors: ClassVar[float] = 0.0
    # Whether it scales channels of a block, whose weights it then keeps in float32.
    folds: ClassVar[bool] = False
    # Whether it keeps the states of its text at every border of blocks, and bytes per weight of its working files.
    taped: ClassVar[bool] = False
    kept_bytes: ClassVar[int] = 0
    # What it multiplies in while it trains.
    trained_in: ClassVar[Literal["bf16", "float32"]] = "bf16"
    variants: ClassVar[Mapping[str, str]] = {}

    type: str
    layers: (
        Annotated[tuple[Annotated[int, Field(ge=0, lt=10000)], ...], Field(min_length=1, max_length=10000)] | None
    ) = Field(default=None, description="Decoder layers, counted from 0; null: all of them.")
    modules: (
        Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(min_length=1, max_length=100)]
        | None
    ) = Field(
        default=None,
        description="Module kinds (`q_proj`, `down_proj`, …, `attention`, `mlp`, `embed_tokens`, `lm_head`); "
        "null: every linear layer of the decoder, neither embeddings nor head.",
    )

    @property
    def code_bits(self) -> float | None:
        """The fewest bits that the code of a weight has after the step; None: the step writes no codes."""
        return None

    @property
    def variant(self) -> str | None:
        """The other runner that the step as it is takes; None: `runner`."""
        values = [str(getattr(self, field, None)) for field in ("form", "allocation", "activations")]
        return next((self.variants[value] for value in values if value in self.variants), None)

    @property
    def at_run_time(self) -> bool:
        """Whether the engine does it, and weights stay."""
        return self.rules == "runtime"

    @property
    def is_streamed(self) -> bool:
        """Whether the step as it is changes one weight at a time."""
        return self.streamed and self.variant is None

    @property
    def local(self) -> bool:
        """Whether the step makes each weight from that weight alone, so that it can do so again."""
        return self.streamed

    def label(self) -> str:
        """The step and where it applies, in a few words: `4-bit RTN, group 64, asymmetric (only layers 0–2)`."""
        return self.words() + self.where()

    def where(self) -> str:
        """Where the step applies, as `label` has it; empty: wherever it can."""
        parts = [layers_in_words(self.layers)] if self.layers else []
        parts += [", ".join(self.modules)] if self.modules else []
        return f" (only {'; '.join(parts)})" if parts else ""

    def words(self) -> str:
        """What the step does, as `label` has it."""
        fields = self.model_dump(mode="json", exclude_defaults=True, exclude=set(Step.model_fields))
        return " ".join([self.type, ", ".join(f"{name} {value}" for name, value in fields.items())]).strip()

    def idle(self) -> list[Idle]:
        """The fields that decide nothing in the step as it is."""
        return []

    @property
    def trained_bytes(self) -> int:
        """Bytes per weight that it holds beside the model while it trains the weights."""
        return 0

    @property
    def kept_tokens(self) -> int:
        """Tokens whose activations in all blocks it keeps at once."""
        return 0

    @property
    def holds_model(self) -> bool:
        """Whether it holds all weights at once; others hold a block, or one weight."""
        return False

    @property
    def trained_tokens(self) -> int:
        """Tokens that the step goes forward and backward over, each as often as it does."""
        return 0

    @property
    def trained_seconds(self) -> float:
        """Seconds of training that the step itself sets as its limit, however fast the machine is."""
        return 0.0

    @property
    def written_tokens(self) -> int:
        """Tokens that the reference writes, which the step looks at beside its calibration text."""
        return 0

    def scratch_bytes(self, parameters: int, layers: int, state_bytes: int) -> int:
        """Bytes of working files that the step has on disk while it runs on a model of so many `parameters` and
        `layers`. `state_bytes`: of the hidden state of one token."""
        return 0


class Calibrated(Step):
    """A step that looks at activations: over which text, and how much of it.

    The documents are tokenized, put one after the other in an order that `seed` decides, and cut into windows.
    """

    # The field that decides whether the text is read, and when it is; only of a type that does not always read it.
    reads_by: ClassVar[tuple[str, str]]

    calibration: TextSource = Field(
        default_factory=lambda: ShippedText(source="shipped", corpus="calibration"),
        description="Text whose activations the step reads. It shares no document with the scored text.",
    )
    calibration_windows: Annotated[int, Field(ge=1, le=MOST_WINDOWS), FALLING] = Field(
        default=32,
        description="Number of windows of this text. At the default, a step that inverts second moments takes 4 tokens "
        "per input of the widest layer if that is more.",
    )
    calibration_window: Annotated[int, Field(ge=8, le=32768), FALLING] = Field(
        default=512, description="Tokens per window."
    )
    seed: Seed = Field(default=0, description="Order of the documents.")

    @property
    def reads_text(self) -> bool:
        """Whether the text decides anything; a type that does not always look at it says so itself."""
        return True

    def idle(self) -> list[Idle]:
        """See `Step`."""
        if self.reads_text:
            return super().idle()
        because, when = self.reads_by
        text = ("calibration", "calibration_windows", "calibration_window")
        return [Idle(text, (because,), f"{self.type} looks at text {when}", f"change {because}"), *super().idle()]

    @property
    def text_tokens(self) -> int:
        """Tokens of the calibration text."""
        return self.calibration_windows * self.calibration_window

    def scratch_bytes(self, parameters: int, layers: int, state_bytes: int) -> int:
        """See `Step`."""
        if not self.reads_text:
            return 0
        borders = BORDERS + (layers + 3 if self.taped else 0)
        return borders * state_bytes * (self.text_tokens + self.written_tokens) + self.kept_bytes * parameters


class Grouped(Step):
    """Weights on an even grid of `bits` bits for each group of `group_size` along the input dimension."""

    role = "quantizer"
    graded_by = "bits"
    replaced_by = "quantize.dynamic"

    bits: Bits = Field(description="Bits per weight.")
    group_size: GroupSize | None = Field(
        default=64,
        description=(
            "Weights along the input dimension that share a scale; it divides that dimension. Null: one scale per "
            "output channel."
        ),
    )
    symmetric: bool = Field(default=False, description="True: no zero points.")
    form: Form = Field(
        default="simulated",
        description="`simulated`: rounded weights in the checkpoint's own dtype; `packed`: a compressed-tensors "
        "checkpoint for vLLM's kernels.",
    )

    @property
    def code_bits(self) -> float:
        """As asked."""
        return float(self.bits)

    def words(self) -> str:
        """See `Step`."""
        grid = "symmetric" if self.symmetric else "asymmetric"
        packed = ", packed" if self.form == "packed" else ""
        return f"{self.bits}-bit {self.title}, {per_group(self.group_size)}, {grid}{packed}"


class Sparse(Step):
    """A share of zeros, or N of every M kept."""

    role = "pruner"
    graded_by = "sparsity"
    replaced_by: ClassVar[str | None] = "prune.gradient"

    sparsity: Sparsity | None = Field(
        default=None, description=("Share of weights that become zero; give this or `pattern`.")
    )
    pattern: Pattern | None = Field(
        default=None,
        description='"N:M": keeps N of every M consecutive weights of a row; M must divide the input dimension.',
    )

    @model_validator(mode="after")
    def _one_strength(self) -> "Sparse":
        if (self.sparsity is None) == (self.pattern is None):
            hint = "sparsity is the share of the weights that become zero, such as 0.5; pattern keeps N of every M."
            raise broken("give either sparsity or pattern", hint=hint)
        if self.pattern is not None:
            kept, of = self.n_of_m()
            if kept >= of:
                message = f"pattern {self.pattern}: N must be smaller than M"
                raise broken(message, at=("pattern",), code="pattern_mismatch")
        return self

    def n_of_m(self) -> tuple[int, int]:
        """(N, M) of the pattern; raises ValueError without one."""
        kept, of = (int(part) for part in (self.pattern or "").split(":"))
        return kept, of

    @property
    def share(self) -> float:
        """The share of zeros that is asked for."""
        if self.sparsity is not None:
            return self.sparsity
        kept, of = self.n_of_m()
        return 1 - kept / of

    def words(self) -> str:
        """See `Step`."""
        return f"{self.title} pruning {self.pattern or percent(self.sparsity)}"
