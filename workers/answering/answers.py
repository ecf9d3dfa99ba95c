"""What an answer is, and whether it is right: the definitions of lm-evaluation-harness 0.4.

Multiple choice: the choice of the largest log-likelihood (acc), of the largest one a character (acc_norm) or a UTF-8
byte (acc_bytes) of the choice's text; the first of equals. Closed generation as in its task gsm8k. Code: pass@1 of the
greedy completion.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.contracts.task import TaskMetric
from app.models.tasks.items import Item
from workers.answering.sandbox.runner import Check

STOPS: Final[dict[str, tuple[str, ...]]] = {
    "gsm8k": ("Question:", "</s>", "<|im_end|>"),
    "humaneval": ("\nclass", "\ndef", "\n#", "\nif", "\nprint"),
}
INVALID: Final = "[invalid]"
CHOICE_METRICS: Final = ("acc", "acc_norm", "acc_bytes")
_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED = tuple(map(re.compile, (r",", r"\$", r"(?s).*#### ", r"\.$")))


@dataclass(frozen=True)
class Answers:
    """One model's answers by one metric: what it said of each item (None: nothing that can be read), and whether that
    is right."""

    said: tuple[str | None, ...]
    right: NDArray[np.bool_]


def choose(items: Sequence[Item], likelihoods: Sequence[NDArray[np.float64]], metric: str) -> Answers:
    """By log-likelihoods of each item's choices, nats. A choice whose likelihood is no number is never chosen."""
    said: list[str | None] = []
    right = []
    for item, values in zip(items, likelihoods, strict=True):
        sizes = np.asarray([_size(choice, metric) for choice in item.choices], dtype=np.float64)
        compared = np.where(np.isfinite(values), values / sizes, -np.inf)
        best = int(np.argmax(compared)) if np.isfinite(compared).any() else -1
        said.append(item.choices[best] if best >= 0 else None)
        right.append(best == item.gold)
    return Answers(tuple(said), np.asarray(right, dtype=np.bool_))


def _size(choice: str, metric: str) -> int:
    return {"acc_norm": len(choice), "acc_bytes": len(choice.encode())}.get(metric, 1)


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the stops."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(places)] if places else text


def extract(text: str, metric: TaskMetric) -> str:
    """The number that an answer ends in: after `####` the first one, or anywhere the last one."""
    if metric == "exact_match_strict":
        found = _STRICT.findall(text)
        return found[0].strip() if found else INVALID
    matches = _FLEXIBLE.findall(text)
    return next((part for part in matches[-1] if part), INVALID).strip() if matches else INVALID


def matches(answer: str, target: str) -> bool:
    """Whether both are the same without commas, dollar signs, all up to `####`, and a last full stop; case ignored."""
    return _plain(answer) == _plain(target)


def _plain(text: str) -> str:
    for pattern in _IGNORED:
        text = pattern.sub("", text)
    return text.lower()


def read_numbers(items: Sequence[Item], texts: Sequence[str], metric: TaskMetric) -> Answers:
    """Closed generation: the number of each text against the target's."""
    said = tuple(extract(text, metric) for text in texts)
    right = [matches(one, item.target) for one, item in zip(said, items, strict=True)]
    return Answers(tuple(None if one == INVALID else one for one in said), np.asarray(right, dtype=np.bool_))


def program(item: Item, completion: str) -> tuple[str, Check]:
    """The function with its completion, and what judges it."""
    return f"{item.prompt}{completion}\n", Check(item.prompt, item.test, item.entry_point)
