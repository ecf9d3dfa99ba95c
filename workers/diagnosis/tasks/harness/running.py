"""The harness as the runner: it asks, we answer, it scores.

Its evaluator makes the requests of a task, hands them to a model, filters what that says, and scores it item by item.
The model here only hands over answers that our engine has given. First it hands over some that no model gave: that
trial tells what is asked, and shows before any pass that the definition takes the rows and that its scores are right or
wrong.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.contracts.errors import HemostatError
from app.contracts.requests.tasks import HarnessTask
from app.contracts.tasks_report import HarnessDefinition
from app.models.nearest import suggestion
from app.models.tasks.harness import HarnessRows
from app.models.tasks.items import Item
from workers.diagnosis.context import JobCancelled
from workers.diagnosis.tasks.answers import INVALID
from workers.diagnosis.tasks.harness.building import Built, build, told
from workers.diagnosis.tasks.harness.definition import (
    UNANSWERED,
    Refusal,
    harness,
    harness_version,
    read_definition,
    replaced,
    shots_of,
    unheard,
)
from workers.diagnosis.tasks.harness.table import table

MAX_TOKENS: Final = 256
# Behind the right answer it tells scores that count words from those of right and wrong.
_MORE: Final = "otherwise"
# In the place of a log-likelihood that is no number: far below all others, and finite for the harness' arithmetic.
_NEVER: Final = -1e30
# Metrics that grade an answer; the trial finds most of the others.
_GRADED: Final = re.compile(r"f1|rouge|bleu|chrf|bertscore|similarity|recall|precision")
# Fields of the choices of a row, one each.
_OPTION: Final = re.compile(r"(option|choice|ending|opt|op)[_ ]?[a-z0-9]|[a-eA-E]", re.IGNORECASE)
_MARK: Final = "hemostat"
Sample = dict[str, Any]


class NotScoredError(HemostatError):
    """A definition that fails on what a model said, which no trial had shown: the other tasks of a job go on."""

    @classmethod
    def of(cls, error: HemostatError) -> NotScoredError:
        """The same, so named."""
        return cls(error.code, error.detail, hint=error.hint, pointer=error.pointer)


@dataclass(frozen=True)
class Scored:
    """What the harness made of one model's answers: by metric who is right, and what its filter read of each
    generated answer."""

    right: dict[str, NDArray[np.bool_]]
    said: dict[str, tuple[str | None, ...]]


@dataclass(frozen=True)
class Harnessed:
    """A task of the harness over our rows. `metric` decides; `stops` and `max_tokens` are of generated answers; `guess`
    is the share of them that whoever always gives the commonest right answer has right."""

    definition: HarnessDefinition
    items: tuple[Item, ...]
    metric: str
    stops: tuple[str, ...]
    max_tokens: int
    guess: float
    built: Built
    seed: int
    refusal: Refusal

    @property
    def scoring(self) -> str:
        """What decides how answers are asked for and scored, items aside."""
        told = self.definition
        words = ["lm_eval", told.version, told.task, told.task_version, self.metric, f"{told.shots}-shot"]
        return " ".join(map(str, words if self.items[0].choices else [*words, self.max_tokens]))

    def choices_scored(self, likelihoods: Sequence[NDArray[np.float64]]) -> Scored:
        """From each choice's log-likelihood, nats. One that is no number is never chosen."""
        answers = [(float(one) if np.isfinite(one) else _NEVER, False) for values in likelihoods for one in values]
        found = self._scored(answers)
        sound = np.asarray([bool(np.isfinite(values).any()) for values in likelihoods], dtype=np.bool_)
        return Scored({metric: right & sound for metric, right in found.right.items()}, {})

    def texts_scored(self, texts: Sequence[str]) -> Scored:
        """From generated answers, as far as the first stop."""
        return self._scored(list(texts))

    def _scored(self, answers: Sequence[object]) -> Scored:
        """Raises `NotScoredError` where what decides gives other numbers than right and wrong, where the definition
        asks something else than it did before, and where its own code fails on an answer."""
        try:
            samples = run(self.built.task, answers, seed=self.seed)
        except JobCancelled:
            raise
        except Exception as error:
            told = self.refusal(f"its own code fails on an answer ({type(error).__name__})", "choose another task")
            raise NotScoredError.of(told) from error
        asked = [tuple(map(_asked, one["arguments"])) for one in _of_one_filter(samples)]
        if asked != [item.pairs or ((item.context, ""),) for item in self.items]:
            told = self.refusal("it asks something else each time it is read", "choose a task that asks the same")
            raise NotScoredError.of(told)
        found = scored(samples)
        try:
            _check_scored(found, self.metric, self.refusal)
        except HemostatError as error:
            raise NotScoredError.of(error) from None
        return found


def prepare(
    task: HarnessTask, rows: HarnessRows, *, seed: int, pointer: str, check_cancelled: Callable[[], None]
) -> Harnessed:
    """The task, with what it asks. Raises INVALID_REQUEST for a definition that does not fit and a metric that is not
    one of right and wrong, TASK_INVALID for rows that the definition does not take; `JobCancelled`."""
    refusal = Refusal(task, pointer)
    with unheard(seed):
        definition = read_definition(task, refusal)
    shots = shots_of(definition, task, refusal)
    tables = {"items": table(rows.items, task.path, refusal, "path")}
    if rows.examples:
        tables["examples"] = table(rows.examples, str(task.examples), refusal, "examples")
    with unheard(seed):
        built = build(
            replaced(definition, task, tables, shots),
            tables,
            str(definition.get("dataset_path") or task.task),
            task,
            rows,
            seed=seed,
            pointer=pointer,
            refusal=refusal,
            check_cancelled=check_cancelled,
        )
    metric = _metric(built.task, task, refusal)
    samples = _trial(built.task, task, rows, refusal, seed)
    with unheard(seed):
        items = tuple(
            _item(built, index, sample, task, refusal) for index, sample in enumerate(_of_one_filter(samples))
        )
    for tried in (samples, *_more_trials(built.task, items, _of_one_filter(samples), task, rows, refusal, seed)):
        _check_scored(scored(tried), metric, refusal)
    settings = harness("models.utils").normalize_gen_kwargs(
        {"do_sample": False} | (built.task.config.generation_kwargs or {}), MAX_TOKENS
    )
    metadata = built.task.config.metadata or {}
    return Harnessed(
        HarnessDefinition(
            task=task.task,
            version=harness_version(),
            task_version=None if metadata.get("version") is None else str(metadata["version"]),
            shots=shots,
        ),
        items,
        metric,
        stops=tuple(map(str, settings["until"])),
        max_tokens=task.max_tokens or int(settings["max_gen_toks"]),
        guess=_guess(built.task, items, samples),
        built=built,
        seed=seed,
        refusal=refusal,
    )


def run(task: Any, answers: Sequence[object] | None, *, seed: int) -> list[Sample]:
    """One evaluation by the harness: an entry an item and filter. `answers` are to its requests in their order; None
    is the trial: nothing of choices, and text that is more than the right answer."""
    model = harness("api.model").LM
    name = task.config.task

    class Answering(model):  # type: ignore[misc, valid-type]  # the harness ships no types
        """Hands over what was answered before."""

        def loglikelihood(self, requests: Sequence[Any]) -> Sequence[object]:
            return [(0.0, False) for _ in requests] if answers is None else answers

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> Sequence[float]:
            raise NotImplementedError

        def generate_until(self, requests: Sequence[Any]) -> Sequence[object]:
            return [f"{_target(task, one.doc)} {_MORE}" for one in requests] if answers is None else answers

    with unheard(seed):
        task.set_fewshot_seed(seed=seed)  # the same examples before an item, whoever answers
        found = harness("evaluator").evaluate(
            lm=Answering(),
            task_dict={"tasks": {name: task}, "groups": {}},
            bootstrap_iters=0,
            log_samples=True,
        )
    samples: list[Sample] = found["samples"][name]
    return samples


def _asked(argument: Sequence[Any]) -> tuple[str, str]:
    """What a request asks: the context, and the continuation whose likelihood is taken."""
    return str(argument[0]), argument[1] if isinstance(argument[1], str) else ""


def scored(samples: Sequence[Sample]) -> Scored:
    """By metric, `acc` or `exact_match,filter`, those whose every score is 0 or 1."""
    right: dict[str, NDArray[np.bool_]] = {}
    said: dict[str, tuple[str | None, ...]] = {}
    for name in dict.fromkeys(str(sample["filter"]) for sample in samples):
        of_filter = sorted((one for one in samples if one["filter"] == name), key=lambda one: int(one["doc_id"]))
        read = tuple(_text(one["filtered_resps"]) for one in of_filter)
        for metric in of_filter[0]["metrics"]:
            values = [one.get(metric) for one in of_filter]
            if all(isinstance(value, bool | int | float | np.number) and value in (0, 1) for value in values):
                key = metric if name == "none" else f"{metric},{name}"
                right[key] = np.asarray(values, dtype=np.bool_)
                said[key] = read
    return Scored(right, said)


def _text(filtered: Sequence[object]) -> str | None:
    """What a filter read of one answer; None where that is nothing, or no text."""
    first = filtered[0] if filtered else None
    return first if isinstance(first, str) and first != INVALID else None


def _trial(
    built: Any,
    task: HarnessTask,
    rows: HarnessRows,
    refusal: Refusal,
    seed: int,
    answers: Sequence[object] | None = None,
) -> list[Sample]:
    try:
        return run(built, answers, seed=seed)
    except JobCancelled:
        raise
    except Exception as error:
        raise refusal(
            f"what it asks about the items of {task.path}, or how it scores answers, cannot be run: "
            f"{told(error, rows)}",
            "the file may lack a field, a number of solved examples be too large, or the task need a package that is "
            "not installed",
            "path",
        ) from error


def _more_trials(
    built: Any,
    items: Sequence[Item],
    samples: Sequence[Sample],
    task: HarnessTask,
    rows: HarnessRows,
    refusal: Refusal,
    seed: int,
) -> list[list[Sample]]:
    """Of generated answers: the right one alone, the last of several right ones, to which a grade over all of them may
    give a number in between, and words alone."""
    if items[0].choices:
        return []
    last = [_target(built, sample["doc"], -1) for sample in samples]
    answers = ([item.target for item in items], last, [_MORE] * len(items))
    return [_trial(built, task, rows, refusal, seed, given) for given in answers]


def _guess(built: Any, items: Sequence[Item], samples: Sequence[Sample]) -> float:
    """Of generated answers: the larger of one in so many choices, where the definition has them, and of the share of
    the commonest right answer, if it is right more than once. 0 for multiple choice, where it is not used."""
    if items[0].choices:
        return 0.0
    common = Counter(item.target.strip().casefold() for item in items).most_common(1)[0][1]
    share = common / len(items) if common > 1 else 0.0
    if built.config.doc_to_choice is None:
        return share
    return max(share, 1 / len(built.doc_to_choice(samples[0]["doc"])))


def _metric(built: Any, task: HarnessTask, refusal: Refusal) -> str:
    """What decides, as the harness writes it. Raises INVALID_REQUEST where the definition has no such one."""
    mean = harness("api.metrics").mean
    averaged = [name for name, how in built.aggregation().items() if how is mean]
    if built.OUTPUT_TYPE == "multiple_choice":
        averaged = [name for name in averaged if name not in UNANSWERED]
    averaged = [name for name in averaged if not _GRADED.search(name)]
    if task.metric is not None and _GRADED.search(task.metric):
        raise refusal(
            f"{task.metric} gives other numbers than right and wrong", suggestion(task.metric, averaged), "metric"
        )
    if not averaged:
        raise refusal(
            f"none of its metrics ({', '.join(built.aggregation())}) is an average of right and wrong answers",
            "choose a task that is scored by accuracy or exact match",
        )
    if task.metric is not None and task.metric not in averaged:
        raise refusal(f"it has no metric {task.metric} of right and wrong", suggestion(task.metric, averaged), "metric")
    filters = [str(one["name"]) for one in built.config.filter_list or ()]
    if task.filter is not None and task.filter not in filters:
        raise refusal(f"it has no filter {task.filter}", suggestion(task.filter, filters), "filter")
    chosen = task.filter or (filters[0] if filters else None)
    metric = task.metric or averaged[0]
    return metric if chosen is None or chosen == "none" else f"{metric},{chosen}"


def _check_scored(trial: Scored, metric: str, refusal: Refusal) -> None:
    """Raises INVALID_REQUEST where what decides is not 0 or 1."""
    if metric not in trial.right:
        raise refusal(
            f"{metric} gives other numbers than right and wrong",
            f"decide by another metric; {suggestion(metric, trial.right)}"
            if trial.right
            else "choose a task that is scored by accuracy or exact match",
            "metric",
        )


def _of_one_filter(samples: Sequence[Sample]) -> list[Sample]:
    first = samples[0]["filter"]
    return sorted((one for one in samples if one["filter"] == first), key=lambda one: int(one["doc_id"]))


def _item(built: Built, place: int, sample: Sample, task: HarnessTask, refusal: Refusal) -> Item:
    """What the trial asked of one item."""
    own, id_, where = built.task, str(built.numbers[place]), built.where(place, task.path)
    doc, arguments = sample["doc"], sample["arguments"]
    if own.OUTPUT_TYPE == "generate_until":
        context = str(arguments[0][0])
        if not context.strip() or _asks_nothing(own, doc):
            raise refusal(f"{where}: the question is empty", "take the item out", "path")
        if (blank := _blank_choice(own, doc, None)) is not None:
            raise refusal(f"{where}: choice {blank} is empty", "take the item out", "path")
        return Item(id_, context, delimiter="", target=_target(own, doc))
    choices = [str(one) for one in own.doc_to_choice(doc)]
    gold = own.doc_to_text(doc) if own.multiple_input else own.doc_to_target(doc)
    if isinstance(gold, list):
        raise refusal("several of its choices are right", "choose a task with one right choice")
    index = choices.index(gold) if isinstance(gold, str) and gold in choices else gold
    if len(choices) < 2 or any(not one.strip() for one in choices):
        raise refusal(f"{where}: there are not two choices at least with text", "take the item out", "path")
    if (blank := _blank_choice(own, doc, len(choices))) is not None:
        raise refusal(f"{where}: choice {blank} is empty", "take the item out", "path")
    if not isinstance(index, int) or not 0 <= index < len(choices):
        raise refusal(
            f"{where}: the answer is none of the {len(choices)} choices",
            "take a split that has answers: test splits are often published without",
            "path",
        )
    pairs = tuple(map(_asked, arguments))
    if any(not before.strip() for before, _ in pairs) or _asks_nothing(own, doc):
        raise refusal(f"{where}: the question is empty", "take the item out", "path")
    return Item(id_, _beginning([before for before, _ in pairs]), choices=tuple(choices), gold=index, pairs=pairs)


def _asks_nothing(built: Any, doc: dict[str, Any]) -> bool:
    """Whether a text of its row that is asked is blank, and its question that of a row without any: a template's words
    alone."""
    if built.multiple_input or not any(_blank(value) for value in doc.values()):
        return False
    try:
        asked = _words(built, doc)
        if _words(built, {name: _with(value, blank=_MARK) for name, value in doc.items()}) == asked:
            return False  # what is blank is not asked
        return asked == _words(built, {name: _with(value, blank="", text="") for name, value in doc.items()})
    except Exception:  # a definition's own code, which such a row may break
        return False


def _words(built: Any, doc: dict[str, Any]) -> list[str]:
    return str(built.doc_to_text(doc)).split()


def _with(value: object, *, blank: str, text: str | None = None) -> object:
    """A row's value with `blank` for its blank texts and `text`, if not None, for the others; lists, as of choices,
    stay."""
    if isinstance(value, dict):
        return {name: _with(one, blank=blank, text=text) for name, one in value.items()}
    if not isinstance(value, str):
        return value
    return blank if not value.strip() else value if text is None else text


def _blank(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_blank, value.values()))
    return isinstance(value, str) and not value.strip()


def _blank_choice(built: Any, doc: dict[str, Any], count: int | None) -> int | None:
    """The number, from 1, of an empty one among so many texts (None: two or more) that are asked, each behind a letter:
    of a list, or of fields that are called option_a and so on."""
    if built.multiple_input:
        return None
    question = str(built.doc_to_text(doc))
    held = [value for one in doc.values() for value in (one.values() if isinstance(one, dict) else (one,))]
    groups = [value for value in held if isinstance(value, list)]
    groups.append([value for name, value in doc.items() if _OPTION.fullmatch(name)] if count is not None else [])
    for found in groups:
        fits = len(found) > 1 if count is None else len(found) == count
        if fits and all(isinstance(one, str) and one.strip() in question for one in found):
            blank = [number for number, one in enumerate(found, 1) if not one.strip()]
            if blank:
                return blank[0]
    return None


def _beginning(texts: Sequence[str]) -> str:
    """What all begin with."""
    low, high = min(texts), max(texts)
    return low[: next((place for place, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))]


def _target(built: Any, doc: dict[str, Any], place: int = 0) -> str:
    """The right answer as text; of several the one at this place."""
    target = built.doc_to_target(doc)
    if built.config.doc_to_choice is not None and isinstance(target, int):
        target = built.doc_to_choice(doc)[target]
    if isinstance(target, list):
        target = target[place] if target else ""
    return str(target)
