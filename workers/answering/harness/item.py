"""What a task of the harness asks of one item, read off a trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from app.contracts.task import HarnessTask
from app.models.tasks.items import Item
from workers.answering.harness.building import Built
from workers.answering.harness.definition import Refusal
from workers.answering.harness.evaluation import Sample, asked_of, target_of


def item_of(built: Built, place: int, sample: Sample, task: HarnessTask, refusal: Refusal) -> Item:
    """What the trial asked of one item."""
    item = _asked(built, place, sample, task, refusal)
    if task.passage is None:
        return item
    if sample["doc"].get(task.passage) in (None, ""):
        where = built.where(place, task.path)
        raise refusal(f"{where}: the field that passage names is missing", "name a field that every row has", "passage")
    return replace(item, passage=str(sample["doc"][task.passage]))


def _asked(built: Built, place: int, sample: Sample, task: HarnessTask, refusal: Refusal) -> Item:
    own, id_, where = built.task, str(built.numbers[place]), built.where(place, task.path)
    doc, arguments = sample["doc"], sample["arguments"]
    if own.OUTPUT_TYPE == "generate_until":
        context = str(arguments[0][0])
        if not context.strip():
            raise refusal(f"{where}: the question is empty", "take the item out", "path")
        return Item(id_, context, delimiter="", target=target_of(own, doc))
    choices = [str(one) for one in own.doc_to_choice(doc)]
    gold = own.doc_to_text(doc) if own.multiple_input else own.doc_to_target(doc)
    index = choices.index(gold) if isinstance(gold, str) and gold in choices else gold
    if len(choices) < 2 or any(not one.strip() for one in choices):
        raise refusal(f"{where}: there are not two choices at least with text", "take the item out", "path")
    if not isinstance(index, int) or not 0 <= index < len(choices):
        raise refusal(
            f"{where}: the answer is none of the {len(choices)} choices",
            "take a split that has answers: test splits are often published without",
            "path",
        )
    pairs = tuple(map(asked_of, arguments))
    if any(not before.strip() for before, _ in pairs):
        raise refusal(f"{where}: the question is empty", "take the item out", "path")
    return Item(id_, _beginning([before for before, _ in pairs]), choices=tuple(choices), gold=index, pairs=pairs)


def _beginning(texts: Sequence[str]) -> str:
    """What all begin with."""
    low, high = min(texts), max(texts)
    return low[: next((place for place, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))]
