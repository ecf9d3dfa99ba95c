"""How long work takes on this installation: each part of a job by what it costs, on a CPU as measured, on a GPU as
computed."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Final

from app.models.processor import has_avx512, has_bf16

# SmolLM2 (134.5M parameters) through vLLM on two cores whose processor multiplies bf16: what every rate in estimates
# was measured beside. With AVX-512 but without its BF16 (two Ice Lake cores) it was 995 tokens/s, without AVX-512 540.
TOKENS_PER_SECOND: Final = 1400.0
TOKENS_PER_SECOND_WITHOUT_BF16: Final = 995.0
TOKENS_PER_SECOND_WITHOUT_AVX512: Final = 540.0
PARAMETERS: Final = 134.5e6
# Taken for a GPU, not measured: the share of a card's rates that a part reaches, and bytes per second of the disk.
EFFICIENCY: Final = 0.4
DISK_BYTES_PER_SECOND: Final = 1e9
# Texts that a model on a GPU writes at a time.
STREAMS: Final = 16


@dataclass(frozen=True)
class Card:
    """What a GPU does at most, as its maker states it: dense FLOP/s of products in bf16 and in float32, and bytes/s of
    its memory. `name`: what the driver's name has in it."""

    name: str
    bf16: float
    float32: float
    memory: float


# Of two names that fit the first counts. The A100 is the one of 40 GB.
CARDS: Final = (
    Card("H200", 989e12, 67e12, 4.8e12),
    Card("H100 PCIe", 756e12, 51e12, 2.0e12),
    Card("H100", 989e12, 67e12, 3.35e12),
    Card("A100", 312e12, 19.5e12, 1.555e12),
    Card("RTX 4090", 165e12, 82.6e12, 1.008e12),
    Card("L4", 121e12, 30.3e12, 0.3e12),
)
# Of each rate the lowest.
UNKNOWN: Final = Card("", *(min(getattr(card, rate) for card in CARDS) for rate in ("bf16", "float32", "memory")))


def card_of(name: str) -> Card:
    """The card that the driver calls `name`, such as `NVIDIA A100-SXM4-80GB`; `UNKNOWN` if it is not in the table."""
    words = f" {name.replace('-', ' ')} "
    return next((card for card in CARDS if f" {card.name} " in words), UNKNOWN)


@dataclass(frozen=True)
class Part:
    """A kind of work, of which two cores do `per_second` units.

    For a GPU, per unit: FLOP in bf16 and in float32, bytes that its memory moves, bytes of the disk. What has none of
    these runs on the host.
    """

    per_second: float
    bf16: float = 0.0
    float32: float = 0.0
    moved: float = 0.0
    disk: float = 0.0

    @property
    def on_host(self) -> bool:
        """Whether a GPU has no part in it."""
        return not (self.bf16 or self.float32 or self.moved or self.disk)


# Units are parameters × tokens if nothing else is said.
SCORED: Final = Part(TOKENS_PER_SECOND * PARAMETERS, bf16=2)
# Vocabulary × hidden size × tokens: two products. On a CPU it is not counted beside the pass.
DIVERGED: Final = Part(inf, bf16=4)
# Parameters: a checkpoint is read, made, written and hashed.
CHANGED: Final = Part(7e7, disk=8)
# Block by block: two forward passes, and second moments of the inputs in float32.
TREATED: Final = Part(4e10, bf16=4, float32=2.4)
# Weights that a step goes through, each as often as it does (`app.models.step_work`, as the next).
WEIGHED: Final = Part(2.2e8, moved=24)
# Numbers multiplied in products with second moments of inputs, and in their factors.
MULTIPLIED: Final = Part(1e11, float32=2)
# Text that a model writes itself, many pieces at once: for a token of each the weights are read once. Of the demo
# model's 8,192 tokens took 44 s on two cores, 16,384 took 85 s (docs/recipes/repair.md).
WRITTEN: Final = Part(2.6e10, bf16=2, moved=2 / STREAMS)
# Forward and backward, by what the step multiplies in. Repair of the demo model on two cores: 86,000 tokens of block by
# block fitting took 330 s, 61,000 of distillation 310 s (the same page). Gradient-aware pruning is taken to be as fast.
TRAINED: Final = {"bf16": Part(3e10, bf16=6), "float32": Part(3e10, float32=6)}
# Forward alone, but each time to the head's distribution over the whole vocabulary: 276,480 tokens of the demo model
# took 1,520 s on one core, which is taken for twice of what two take.
MEASURED: Final = Part(4.9e10, float32=2)


def drawn(tokens_per_second: float) -> Part:
    """Text that a model of `PARAMETERS` parameters draws at this rate on two cores."""
    return Part(tokens_per_second * PARAMETERS, bf16=2, moved=2 / STREAMS)


@dataclass(frozen=True)
class Pace:
    """`tokens_per_second` of a model of `PARAMETERS` parameters over a text; `told` says how that is known. `card`:
    what the driver calls the GPU that runs it; empty on a CPU."""

    tokens_per_second: float
    told: str
    card: str = ""

    @property
    def slower(self) -> float:
        """What seconds measured beside `TOKENS_PER_SECOND` are multiplied by, on a CPU."""
        return TOKENS_PER_SECOND / self.tokens_per_second

    def seconds(self, part: Part, units: float) -> float:
        """How long so much work of a part takes. A GPU says nothing of the processor beside it: what runs there takes
        what it took where it was measured."""
        if part is SCORED or not self.card:
            return self.slower * units / part.per_second
        if part.on_host:
            return units / part.per_second
        card = card_of(self.card)
        computed = part.bf16 / card.bf16 + part.float32 / card.float32 + part.moved / card.memory
        return units * (computed / EFFICIENCY + part.disk / DISK_BYTES_PER_SECOND)

    def assumptions(self) -> tuple[str, ...]:
        """How rates that were measured elsewhere, or stated, become seconds here."""
        if self.card:
            card = card_of(self.card)
            rates = "the slowest known card: this one is unknown" if card is UNKNOWN else "its maker"
            return (
                f"other work on {self.card} is computed, not measured: {100 * EFFICIENCY:.0f} % of the rates of "
                f"{rates} ({card.bf16 / 1e12:.0f} TFLOP/s in bf16, {card.float32 / 1e12:.0f} in float32, "
                f"{card.memory / 1e12:.3g} TB/s of memory), {DISK_BYTES_PER_SECOND / 1e9:.0f} GB/s of disk",
                "work on the host takes what it took on the 2-core CPU that its rates were measured on",
            )
        if self.slower == 1:
            return ("rates were measured on a 2-core CPU",)
        times = self.slower if self.slower > 1 else 1 / self.slower
        than = "slower" if self.slower > 1 else "faster"
        return (
            f"all work is taken to be {times:.2g} times {than} here than on the 2-core CPU that rates were measured on "
            f"({TOKENS_PER_SECOND:.0f} tokens/s over a text)",
        )


def of_steps(here: Pace, *, batch_invariant: bool) -> Pace:
    """Of recipe steps, fits and swapped parts: a GPU leaves them to the host in batch-invariant mode."""
    return Pace(TOKENS_PER_SECOND, here.told) if here.card and batch_invariant else here


def measured(workers: Iterable[tuple[float | None, str]]) -> Pace | None:
    """Of the workers that live, the fastest: parameters times tokens per second of each one's last pass, and its card,
    empty without a GPU. While none has run a pass, a card's rate is computed; None if there is no card either."""
    living = list(workers)
    known = [(rate, card) for rate, card in living if rate]
    if known:
        rate, card = max(known)
        return Pace(rate / PARAMETERS, "as a worker's last pass measured it here", card)
    cards = [card for _, card in living if card]
    if not cards:
        return None
    best = max(cards, key=lambda card: card_of(card).bf16)
    rate = EFFICIENCY * card_of(best).bf16 / SCORED.bf16
    return Pace(rate / PARAMETERS, f"as computed for {best}", best)


def assumed() -> Pace:
    """While no worker has run a model over a text: by the processor of this machine."""
    if not has_avx512():
        return Pace(
            TOKENS_PER_SECOND_WITHOUT_AVX512, "as measured on a 2-core CPU without AVX-512, like this machine's"
        )
    if not has_bf16():
        told = "as measured on a 2-core CPU that has AVX-512 without BF16, like this machine's"
        return Pace(TOKENS_PER_SECOND_WITHOUT_BF16, told)
    return Pace(TOKENS_PER_SECOND, "as measured on a 2-core CPU")
