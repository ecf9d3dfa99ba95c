"""What `tests.bench.harness` asks of both sides, and the form in which each tells its answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from app.contracts.task import TaskFormat, TaskMetric
from tests.bench.harness_items import SHOTS

FORMATS: Final[tuple[TaskFormat, ...]] = ("hellaswag", "arc", "mmlu", "gsm8k")
MAX_TOKENS: Final = 36
# Drawn likelihoods an item.
DRAWS: Final = 20


@dataclass(frozen=True)
class Told:
    """One item as one side answered it: what the model read before each answer, log-likelihoods of choices in nats or
    the text generated, and by metric what was chosen and whether that is right."""

    prompt: str
    logp: tuple[float, ...]
    text: str
    said: dict[TaskMetric, str]
    right: dict[TaskMetric, bool]


def shown(form: TaskFormat) -> dict[str, Any]:
    """The solved examples before each item, as a request names them."""
    return {"shots": SHOTS, "examples": f"{form}-shown.jsonl"} if form in {"mmlu", "gsm8k"} else {}


def drawn(choices: Sequence[str], number: int) -> list[float]:
    """Log-likelihoods of choices, nats: about one a byte, so that characters and bytes rank them otherwise. They are
    rounded, so that some are equal."""
    rng = np.random.default_rng(number)
    return [-round(len(choice.encode()) * float(rng.uniform(0.7, 1.3))) / 2 for choice in choices]
