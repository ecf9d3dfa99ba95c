"""Decoders of generated text: name, parameters, their bounds, and the value that their authors published.

What each does, and where it comes from: docs/decoders.md. Parameters apply in the order in which they are named there:
temperature first, then the truncation.
"""

from typing import Annotated, Final, Literal, get_args

from pydantic import Field, TypeAdapter, model_validator

from app.contracts.base import Contract, broken

DECODERS_HINT: Final = "/openapi.json lists the decoders and their fields."
Temperature = Annotated[float, Field(gt=0, le=2, description="divides the logits before anything else")]
Candidates = Annotated[int, Field(ge=1, le=64, description="most probable tokens that are looked at")]
Degeneration = Annotated[float, Field(ge=0, le=1, description="weight of the penalty; 0 is greedy")]
Order = Annotated[int, Field(ge=2, le=8, description="tokens of the longest n-gram")]


class Greedy(Contract):
    """The most probable token."""

    name: Literal["greedy"] = "greedy"


class Beam(Contract):
    """Beam search; the finished sequence of the largest log-probability / length^`length_penalty`."""

    name: Literal["beam"]
    beams: Annotated[int, Field(ge=2, le=16)] = 4
    length_penalty: Annotated[float, Field(ge=-2, le=2)] = 1.0


class DiverseBeam(Contract):
    """Beam search in groups, each kept from the tokens that earlier groups took at the same step."""

    name: Literal["diverse_beam"]
    beams: Annotated[int, Field(ge=2, le=16)] = 4
    groups: Annotated[int, Field(ge=2, le=16, description="must divide `beams`")] = 4
    diversity: Annotated[float, Field(ge=0, le=10, description="nats for each earlier choice of the token")] = 0.5
    length_penalty: Annotated[float, Field(ge=-2, le=2)] = 1.0

    @model_validator(mode="after")
    def _even_groups(self) -> "DiverseBeam":
        if self.beams % self.groups:
            raise broken(f"groups {self.groups} does not divide beams {self.beams}", hint=DECODERS_HINT, at=("groups",))
        return self


class Contrastive(Contract):
    """Contrastive search: probability against likeness to the hidden states before."""

    name: Literal["contrastive"]
    k: Candidates = 8
    alpha: Degeneration = 0.6


class Fsd(Contract):
    """Frustratingly simple decoding, vectorized: an n-gram anti-model over hidden states."""

    name: Literal["fsd"]
    k: Candidates = 3
    alpha: Degeneration = 0.45
    n: Order = 2


class FsdD(Contract):
    """Frustratingly simple decoding, discrete: an interpolated n-gram anti-model over tokens."""

    name: Literal["fsd_d"]
    k: Candidates = 3
    alpha: Degeneration = 0.65
    n: Order = 3
    beta: Annotated[
        float, Field(ge=0, le=1, description="weight of the longer n-gram at each step of the back-off")
    ] = 0.9


class TemperatureSampling(Contract):
    """Sampling from the whole distribution."""

    name: Literal["temperature"]
    temperature: Temperature = 0.7


class TopP(Contract):
    """Nucleus sampling: the fewest tokens whose mass reaches `p`."""

    name: Literal["top_p"]
    p: Annotated[float, Field(gt=0, le=1)] = 0.95
    temperature: Temperature = 1.0


class TopK(Contract):
    """The `k` most probable tokens."""

    name: Literal["top_k"]
    k: Annotated[int, Field(ge=1, le=1_000_000)] = 40
    temperature: Temperature = 1.0


class MinP(Contract):
    """Tokens of at least `p` times the largest probability."""

    name: Literal["min_p"]
    p: Annotated[float, Field(gt=0, le=1)] = 0.1
    temperature: Temperature = 1.0


class Eta(Contract):
    """Tokens of at least min(ε, √ε·e^−H)."""

    name: Literal["eta"]
    epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.0003
    temperature: Temperature = 1.0


class Typical(Contract):
    """The tokens whose surprise is nearest to the entropy, until their mass reaches `mass`."""

    name: Literal["typical"]
    mass: Annotated[float, Field(gt=0, lt=1)] = 0.95
    temperature: Temperature = 1.0


class Mirostat(Contract):
    """Top-k whose k is steered so that the surprise stays at `tau` bits per token."""

    name: Literal["mirostat"]
    tau: Annotated[float, Field(gt=0, le=20, description="bits per token")] = 3.0
    rate: Annotated[float, Field(gt=0, le=1, description="learning rate of the steering")] = 1.0
    m: Annotated[int, Field(ge=2, le=10_000, description="tokens that Zipf's exponent is estimated from")] = 100
    temperature: Temperature = 1.0


# A distribution reshaped, each token by itself: what a distance can be taken after.
Shaping = TemperatureSampling | TopP | TopK | MinP | Eta | Typical
Sampler = Shaping | Mirostat
# Those that vLLM has, of which it shows logits; the others run in a loop over transformers.
InVllm = Greedy | TemperatureSampling | TopP | TopK | MinP
Search = Greedy | Beam | DiverseBeam | Contrastive | Fsd | FsdD
Decoder = Greedy | Beam | DiverseBeam | Contrastive | Fsd | FsdD | Shaping | Mirostat
AnyDecoder = Annotated[Decoder, Field(discriminator="name")]
AnyShaping = Annotated[Shaping, Field(discriminator="name")]
DECODER: Final[TypeAdapter[Decoder]] = TypeAdapter(AnyDecoder)
SHAPING: Final[TypeAdapter[Shaping]] = TypeAdapter(AnyShaping)

DECODERS: Final[tuple[str, ...]] = tuple(
    get_args(kind.model_fields["name"].annotation)[0] for kind in get_args(Decoder)
)
SHAPING_NAMES: Final[tuple[str, ...]] = tuple(
    get_args(kind.model_fields["name"].annotation)[0] for kind in get_args(Shaping)
)

# Why a decoder that is none of `SHAPING_NAMES` is refused as one.
NO_SHAPING: Final = (
    "it is a decoder, and distances are taken only after what reshapes each token's distribution by itself"
)


def defaults() -> tuple[Decoder, ...]:
    """All thirteen, each with its default parameters."""
    return tuple(DECODER.validate_python({"name": name}) for name in DECODERS)


def runs_in_vllm(decoder: Decoder) -> bool:
    """Whether vLLM runs it; else transformers does."""
    return isinstance(decoder, InVllm)


def rows_of(decoder: Decoder) -> int:
    """How many rows of the model a prompt takes."""
    if isinstance(decoder, Beam | DiverseBeam):
        return decoder.beams
    return decoder.k if isinstance(decoder, Contrastive) else 1
