"""Published files of tasks as `tests.bench.tasks` puts them to a job: below its text root, in a job's fields.

A folder holds `hellaswag/`, `arc-challenge/`, `gsm8k/` and `humaneval/`, each with the file that is passed around:

- `hellaswag_val_full.txt.bz2`, as llama.cpp reads it: six lines an item, brackets taken out. What the data set calls
  `ctx_a` and `ctx_b` stand in one line there. `ctx_b` is the beginning of a sentence, in small letters, that the ending
  goes on with; WikiHow's items, which begin with *How*, have none.
- `test.json` of ARC-Challenge as LLM-Adapters writes it: question and answers in one instruction.
- `test.jsonl` of GSM8K, and `HumanEval.jsonl.gz`, in the fields of their authors.

Nothing of these files is kept but below the text root.
"""

from __future__ import annotations

import bz2
import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

Json = dict[str, Any]
# GSM8K's solved examples: from `train.jsonl` where it lies beside, else the first items of the test file, which are not
# asked then.
SHOTS: Final = 2
_HELLASWAG_LINES: Final = 6
_INSTRUCTION: Final = re.compile(
    r"Please choose the correct answer to the question: (.*)\n\n(Answer1: .*)\n\nAnswer format: .*", re.DOTALL
)
_ANSWER: Final = re.compile(r"(?:^|\s)Answer(\d): ?")
# All but the last sentence; the last one begins with a small letter, or with a quotation mark.
_LAST_SENTENCE: Final = re.compile(r"(.*[.?!:;)\"]) +([^A-Z\s].*)", re.DOTALL)


def hellaswag(text: str) -> Iterator[Json]:
    """Items of llama.cpp's file. Raises ValueError where it is none."""
    lines = text.rstrip("\n").split("\n")
    if len(lines) % _HELLASWAG_LINES:
        raise ValueError(f"HellaSwag: {len(lines)} lines are not {_HELLASWAG_LINES} an item")
    for number, start in enumerate(range(0, len(lines), _HELLASWAG_LINES)):
        beginning, label, *endings = lines[start : start + _HELLASWAG_LINES]
        activity, mark, context = beginning.partition(": ")
        if not mark or not label.isdecimal():
            raise ValueError(f"HellaSwag, line {start + 1}: no activity, or no label behind it")
        first, second = _parts(context.strip())
        yield {
            "ind": number,
            "activity_label": activity,
            "ctx_a": first,
            "ctx_b": second,
            "endings": endings,
            "label": int(label),
        }


def _parts(context: str) -> tuple[str, str]:
    """`ctx_a` and `ctx_b`."""
    whole = context.startswith("How ") and context[-1] in ".?!:;)\"'"
    found = None if whole else _LAST_SENTENCE.fullmatch(context)
    return (found[1], found[2]) if found else (context, "")


def arc(rows: Iterable[Mapping[str, str]]) -> Iterator[Json]:
    """Items of LLM-Adapters' file. Raises ValueError where one is not written so."""
    for number, row in enumerate(rows):
        found = _INSTRUCTION.fullmatch(row["instruction"])
        _, *parts = _ANSWER.split(found[2]) if found else [""]
        labels, texts = parts[0::2], parts[1::2]
        key = row["answer"].removeprefix("answer")
        if found is None or labels != [str(place + 1) for place in range(len(labels))] or key not in labels:
            raise ValueError(f"ARC-Challenge, item {number}: no question with numbered answers, one of them right")
        yield {
            "id": f"arc-{number}",
            "question": found[1],
            "choices": {"text": texts, "label": labels},
            "answerKey": key,
        }


def write_files(data: Path, root: Path, items: Mapping[str, int]) -> list[Json]:
    """The tasks of a request, by the number of items of each, with their files below `root`. Raises what reading
    raises."""
    root.mkdir(parents=True, exist_ok=True)
    packed = data / "hellaswag" / "hellaswag_val_full.txt.bz2"
    _write(root / "hellaswag.jsonl", hellaswag(bz2.decompress(packed.read_bytes()).decode("utf-8")))
    _write(root / "arc.jsonl", arc(json.loads((data / "arc-challenge" / "test.json").read_text(encoding="utf-8"))))
    problems = _lines((data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8"))
    train = data / "gsm8k" / "train.jsonl"
    if train.is_file():
        shown = _lines(train.read_text(encoding="utf-8"))[:SHOTS]
    else:
        shown, problems = problems[:SHOTS], problems[SHOTS:]
    _write(root / "gsm8k.jsonl", problems)
    _write(root / "gsm8k-shown.jsonl", shown)
    programs = gzip.decompress((data / "humaneval" / "HumanEval.jsonl.gz").read_bytes()).decode("utf-8")
    _write(root / "humaneval.jsonl", _lines(programs))
    told: list[Json] = [
        {"format": "hellaswag", "path": "hellaswag.jsonl"},
        {"format": "arc", "path": "arc.jsonl", "name": "arc-challenge"},
        {"format": "gsm8k", "path": "gsm8k.jsonl", "shots": SHOTS, "examples": "gsm8k-shown.jsonl"},
        {"format": "humaneval", "path": "humaneval.jsonl"},
    ]
    named = ((str(task.get("name", task["format"])), task) for task in told)
    return [{"source": "file", **task, "items": items[name]} for name, task in named if name in items]


def _lines(text: str) -> list[Json]:
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def _write(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
