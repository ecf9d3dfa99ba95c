"""Rows of well-known tasks of the harness, and tasks prepared from them."""

from typing import Any

from app.contracts.task import HarnessTask
from app.models.tasks.harness import HarnessRows
from workers.answering.harness.running import Harnessed, prepare

Row = dict[str, Any]
HELLASWAG = [
    {
        "activity_label": "Roof shingle removal",
        "ctx_a": f"A man is sitting on {number} roofs.",
        "ctx_b": "he",
        "endings": ["is using wrap.", "starts [substeps] pulling up roofing  on a roof."],
        "label": str(number % 2),
    }
    for number in range(4)
]
WINOGRANDE = [
    {"sentence": "Ann was faster than Bea so _ won the race.", "option1": "Ann", "option2": "Bea", "answer": "1"},
    {"sentence": "Ann was slower than Bea so _ won the race.", "option1": "Ann", "option2": "Bea", "answer": "2"},
]
SUMS = [{"question": f"{number} and {number}?", "answer": f"It is\n#### {2 * number}"} for number in range(1, 6)]
SHOWN = [{"question": f"{number} and 1?", "answer": f"It is\n#### {number + 1}"} for number in range(20, 30)]
MMLU = [
    {"question": f"Q{n}?", "subject": "anatomy", "choices": ["a", "b", "c", "d"], "answer": n % 4} for n in range(4)
]
ARC = [
    {"id": str(n), "question": f"Q{n}?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "A"}
    for n in range(3)
]
SECRET = "A man is sitting"


def task(name: str, **fields: Any) -> HarnessTask:
    return HarnessTask.model_validate({"source": "harness", "task": name, "path": "items.jsonl"} | fields)


def prepared(name: str, rows: list[Row], examples: list[Row] | None = None, **fields: Any) -> Harnessed:
    if examples:
        fields["examples"] = "examples.jsonl"
    found = HarnessRows(rows, examples or ())
    return prepare(task(name, **fields), found, seed=3, pointer="/tasks/0", check_cancelled=lambda: None)
