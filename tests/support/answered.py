"""Both models' answers to a task by how many are right, as if two models had given them."""

from __future__ import annotations

import numpy as np

from app.contracts.task import FileTask
from app.models.tasks.items import Item
from workers.answering.answers import Answers
from workers.answering.pair import Answered


def answered(name: str, both_right: int, both_wrong: int, harmful: int, helpful: int) -> Answered:
    """Generated answers to so many items: right by both, by neither, by the reference alone, by the candidate alone."""
    counts = [both_right, both_wrong, harmful, helpful]
    sides = [
        {"exact_match_flexible": Answers((None,) * sum(counts), np.repeat(np.array(right, dtype=np.bool_), counts))}
        for right in ([1, 0, 1, 0], [1, 0, 0, 1])
    ]
    task = FileTask(source="file", format="gsm8k", path=f"{name}.jsonl", name=name)
    items = [Item(id=f"i{number}", prompt="p", target="1") for number in range(sum(counts))]
    return Answered(task, items, name, sides[0], sides[1], "exact_match_flexible", shortened=0)
