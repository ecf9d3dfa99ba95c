"""How fast this installation runs models: what estimates of seconds are multiplied by."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from app.models.processor import has_avx512, has_bf16

# SmolLM2 (134.5M parameters) through vLLM on two cores whose processor multiplies bf16: what every rate in estimates
# was measured beside. With AVX-512 but without its BF16 (two Ice Lake cores) it was 995 tokens/s, without AVX-512 540.
TOKENS_PER_SECOND: Final = 1400.0
TOKENS_PER_SECOND_WITHOUT_BF16: Final = 995.0
TOKENS_PER_SECOND_WITHOUT_AVX512: Final = 540.0
PARAMETERS: Final = 134.5e6
# At that pace: parameters that a step changes, and, block by block, forward passes and second moments of its text.
SURGERY_PARAMETERS_PER_SECOND: Final = 5e7
TREATED_PARAMETER_TOKENS_PER_SECOND: Final = 4e10


@dataclass(frozen=True)
class Pace:
    """`tokens_per_second` of a model of `PARAMETERS` parameters over a text; `told` says how that is known. `gpu`:
    whether a GPU ran it."""

    tokens_per_second: float
    told: str
    gpu: bool = False

    @property
    def slower(self) -> float:
        """What seconds measured beside `TOKENS_PER_SECOND` are multiplied by."""
        return TOKENS_PER_SECOND / self.tokens_per_second

    @property
    def of_steps(self) -> float:
        """What seconds of recipe steps are divided by `slower` and multiplied by. Steps run on the processor, of which
        the rate of a GPU says nothing: they then take what they took where they were measured."""
        return 1 / self.slower if self.gpu else 1.0


def measured(rates: Iterable[tuple[float | None, bool]]) -> Pace | None:
    """Of the workers that live, the fastest: `rates` are parameters times tokens per second of each one's last pass,
    and whether it has a GPU."""
    known = [(rate, gpu) for rate, gpu in rates if rate]
    if not known:
        return None
    rate, gpu = max(known)
    return Pace(rate / PARAMETERS, "as a worker's last pass measured it here", gpu)


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
