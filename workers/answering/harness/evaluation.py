"""One evaluation by the harness, with answers that were given before.

Its evaluator makes the requests of a task, hands them to a model, filters what that says, and scores it item by item.
The model here only hands over answers that our engine has given, or, in a trial, that no model gave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.answering.answers import INVALID
from workers.answering.harness.definition import harness, unheard
from workers.answering.harness.metric import RIGHT_OR_WRONG

Sample = dict[str, Any]


@dataclass(frozen=True)
class Scored:
    """What the harness made of one model's answers: by metric who is right, and what its filter read of each
    generated answer."""

    right: dict[str, NDArray[np.bool_]]
    said: dict[str, tuple[str | None, ...]]


def run(task: Any, answers: Sequence[object] | None, *, seed: int) -> list[Sample]:
    """One evaluation by the harness: an entry an item and filter. `answers` are to its requests in their order; None
    is a trial, to read what is asked: each choice is as likely, and each text is empty."""
    model = harness("api.model").LM
    name = task.config.task

    class Answering(model):  # type: ignore[misc, valid-type]  # the harness ships no types
        """Hands over what was answered before."""

        def loglikelihood(self, requests: Sequence[Any]) -> Sequence[object]:
            return [(0.0, False) for _ in requests] if answers is None else answers

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> Sequence[float]:
            raise NotImplementedError

        def generate_until(self, requests: Sequence[Any]) -> Sequence[object]:
            return [""] * len(requests) if answers is None else answers

    with unheard(seed):
        task.set_fewshot_seed(seed=seed)  # the same examples before an item, no matter who answers
        found = harness("evaluator").evaluate(
            lm=Answering(),
            task_dict={"tasks": {name: task}, "groups": {}},
            bootstrap_iters=0,
            log_samples=True,
        )
    samples: list[Sample] = found["samples"][name]
    return samples


def asked_of(argument: Sequence[Any]) -> tuple[str, str]:
    """What a request asks: the context, and the continuation whose likelihood is taken."""
    return str(argument[0]), argument[1] if isinstance(argument[1], str) else ""


def scored(samples: Sequence[Sample]) -> Scored:
    """By metric, `acc` or `exact_match,filter`, who is right."""
    right: dict[str, NDArray[np.bool_]] = {}
    said: dict[str, tuple[str | None, ...]] = {}
    for name in dict.fromkeys(str(sample["filter"]) for sample in samples):
        of_filter = sorted((one for one in samples if one["filter"] == name), key=lambda one: int(one["doc_id"]))
        read = tuple(_text(one["filtered_resps"]) for one in of_filter)
        for metric in of_filter[0]["metrics"]:
            if metric in RIGHT_OR_WRONG:
                key = metric if name == "none" else f"{metric},{name}"
                right[key] = np.asarray([one[metric] for one in of_filter], dtype=np.bool_)
                said[key] = read
    return Scored(right, said)


def _text(filtered: Sequence[object]) -> str | None:
    """What a filter read of one answer; None if that is nothing, or no text."""
    first = filtered[0] if filtered else None
    return first if isinstance(first, str) and first != INVALID else None


def of_one_filter(samples: Sequence[Sample]) -> list[Sample]:
    """An entry an item, in the rows' order."""
    first = samples[0]["filter"]
    return sorted((one for one in samples if one["filter"] == first), key=lambda one: int(one["doc_id"]))


def target_of(built: Any, doc: dict[str, Any]) -> str:
    """The right answer as text; of several the first."""
    target = built.doc_to_target(doc)
    return str(next(iter(target), "") if isinstance(target, list) else target)
