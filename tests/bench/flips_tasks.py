"""The tasks that predictions of flips are held against, made of published texts: files below a job's text root.

Beside the shipped items these are, each in the fields of HellaSwag:

- `hellaswag-activitynet` and `hellaswag-wikihow`: HellaSwag's two sources, captions of films and instructions. The
  former alone has a second part of its context.
- `next-sentence`: of WikiText-2's test split, a sentence under its article's title, and which of four goes on: the one
  that does, and three of other articles. Made here, not published.

ARC-Challenge is not among them: on as many of its items as there is time for the demo model is at chance
(docs/tasks.md), and such runs are not learned from.
"""

from __future__ import annotations

import bz2
import json
import random
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from tests.bench.tasks_files import hellaswag

Json = dict[str, Any]
# So many that a sweep of all recipes takes about half an hour on one thread.
ITEMS: Final = {"hellaswag-activitynet": 60, "hellaswag-wikihow": 30, "next-sentence": 50}
CHOICES: Final = 4
_TITLE: Final = re.compile(r" = ([^=].*[^=]) = ")
# Sentences of a length that a caption has, with an end of their own.
_LENGTH: Final = range(40, 121)


def pairs(text: str) -> Iterator[tuple[str, str, str]]:
    """(title, sentence, the sentence behind it) of WikiText's raw text: the first such pair of each paragraph."""
    title = ""
    for line in text.split("\n"):
        found = _TITLE.fullmatch(line)
        if found is not None:
            title = found[1]
            continue
        sentences = [part.strip() + " ." for part in line.split(" . ") if part.strip()]
        for first, second in pairwise(sentences):
            if len(first) in _LENGTH and len(second) in _LENGTH:
                yield title, first, second
                break


def next_sentence(text: str) -> Iterator[Json]:
    """Items of WikiText's raw text, the wrong endings drawn from other articles' right ones. Raises ValueError where
    there are too few articles."""
    rng = random.Random(0)
    found = list(pairs(text))
    for number, (title, first, second) in enumerate(found):
        others = [ending for name, _, ending in found if name != title]
        if len(others) < CHOICES - 1:
            raise ValueError(f"WikiText: the pairs of {len({name for name, _, _ in found})} articles are too few")
        endings = [second, *rng.sample(others, CHOICES - 1)]
        rng.shuffle(endings)
        yield {
            "ind": number,
            "activity_label": title,
            "ctx_a": first,
            "ctx_b": "",
            "endings": endings,
            "label": endings.index(second),
        }


def write_files(data: Path, root: Path, items: Mapping[str, int] = ITEMS) -> list[str]:
    """The files below `root`, and the tasks as `--task` takes them. Raises what reading raises."""
    root.mkdir(parents=True, exist_ok=True)
    packed = data / "hellaswag" / "hellaswag_val_full.txt.bz2"
    endings = list(hellaswag(bz2.decompress(packed.read_bytes()).decode("utf-8")))
    rows: dict[str, list[Json]] = {
        "hellaswag-activitynet": [row for row in endings if row["ctx_b"]],
        "hellaswag-wikihow": [row for row in endings if not row["ctx_b"]],
        "next-sentence": list(next_sentence((data / "wikitext-2-raw" / "wiki.test.raw").read_text(encoding="utf-8"))),
    }
    told = ["shipped"]
    for name, count in items.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[name])
        (root / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        told.append(f"hellaswag:{name}.jsonl,name={name},items={count}")
    return told
