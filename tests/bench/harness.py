"""`python -m tests.bench.harness`: answers as tasks jobs score them beside lm-evaluation-harness' own; writes
tests/bench/harness.csv.

The same files of items are answered twice by the demo model: by what a tasks job answers with, and by the harness'
evaluator with its model class `hf` and its own task definitions, which are only pointed at the files. In float32 both
compute the same, so that every difference is one of definition; in bfloat16, as both run by default, rounding is seen,
and told for each side against its own float32.
Each runs in a process of its own; `python -m tests.bench.harness FOLDER` leaves there what was answered, and asks for
nothing twice. Texts made by hand go through the harness' filters and its metric beside ours, likelihoods that are drawn
through its choice.

Of HumanEval only the stops are compared: the harness loads its metric from a hub when it reads the task.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Final

from app.contracts.task import TaskFormat
from tests.bench.harness_items import write_items
from tests.bench.harness_told import FORMATS, Told
from tests.bench.rows import Row, write
from workers.engine import environment

RESULTS = Path(__file__).with_name("harness.csv")
ROOT = Path(__file__).resolve().parents[2]
OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
EXACT: Final = "float32"
DTYPES: Final = (EXACT, "bfloat16")


def differences(bench: str, case: str, ours: Sequence[Told], theirs: Sequence[Told]) -> list[Row]:
    """Rows of one task. Raises ValueError where the two did not answer the same items and choices."""
    pairs = list(zip(ours, theirs, strict=True))
    rows = [
        Row(bench, case, "items", len(pairs), "count"),
        Row(bench, case, "different_prompts", sum(one.prompt != other.prompt for one, other in pairs), "count"),
    ]
    gaps = [abs(a - b) for one, other in pairs for a, b in zip(one.logp, other.logp, strict=True)]
    if gaps:
        rows += [
            Row(bench, case, "choices", len(gaps), "count"),
            Row(bench, case, "largest_difference", max(gaps), "nats"),
            Row(bench, case, "mean_difference", sum(gaps) / len(gaps), "nats"),
        ]
    if any(other.text for other in theirs):
        rows.append(Row(bench, case, "different_texts", sum(one.text != other.text for one, other in pairs), "count"))
    for metric in pairs[0][1].said:
        apart = sum(one.said[metric] != other.said[metric] for one, other in pairs)
        unlike = sum(one.right[metric] != other.right[metric] for one, other in pairs)
        rows += [
            Row(bench, case, f"{metric}_different_answers", apart, "count"),
            Row(bench, case, f"{metric}_different_right", unlike, "count"),
            Row(bench, case, f"{metric}_harness", sum(other.right[metric] for _, other in pairs) / len(pairs), "ratio"),
        ]
    return rows


def mean_gap(answers: Sequence[Told], exact: Sequence[Told]) -> float:
    """Mean absolute difference of log-likelihoods of choices, nats."""
    pairs = zip(answers, exact, strict=True)
    gaps = [abs(a - b) for one, other in pairs for a, b in zip(one.logp, other.logp, strict=True)]
    return sum(gaps) / len(gaps)


def _child(part: str, home: Path, dtype: str) -> dict[TaskFormat, list[Told]]:
    """A side in a process of its own."""
    file = home / f"{part}-{dtype}.json"
    if not file.is_file():
        subprocess.run(
            [sys.executable, "-m", "tests.bench.harness", str(home), part, dtype],
            check=True,
            cwd=ROOT,
            env=environment.child_environment() | OFFLINE | {"HF_HOME": str(home / "hub")},
        )
    return {
        form: [Told(**{**told, "logp": tuple(told["logp"])}) for told in items]
        for form, items in json.loads(file.read_text(encoding="utf-8")).items()
    }


def _run(part: str, home: Path, dtype: str) -> None:
    environment.prepare()
    side = import_module(f"tests.bench.harness_{part}")
    answered: dict[TaskFormat, list[Told]] = side.answer(home, dtype)
    plain = {form: [asdict(told) for told in items] for form, items in answered.items()}
    (home / f"{part}-{dtype}.json").write_text(json.dumps(plain), encoding="utf-8")


def main(home: Path) -> None:
    """Compares, and writes the CSV."""
    os.environ |= OFFLINE | {"HF_HOME": str(home / "hub")}
    logging.disable(logging.WARNING)
    write_items(home)
    from tests.bench import harness_here, harness_there

    texts = harness_here.read(), harness_there.read(home)
    choices = harness_here.choices(home), harness_there.choices(home)
    rows = differences("harness", "texts", *texts) + differences("harness", "drawn_likelihoods", *choices)
    apart = sum(one.said["acc_norm"] != one.said["acc_bytes"] for one in choices[1])
    rows.append(Row("harness", "drawn_likelihoods", "acc_norm_other_than_acc_bytes", apart, "count"))
    told = {(part, dtype): _child(part, home, dtype) for dtype in DTYPES for part in ("here", "there")}
    for dtype in DTYPES:
        for form in FORMATS:
            case = f"{form}_{dtype}"
            rows += differences("harness", case, told["here", dtype][form], told["there", dtype][form])
            if dtype != EXACT and form != "gsm8k":
                for part, name in (("here", "rounding"), ("there", "rounding_harness")):
                    gap = mean_gap(told[part, dtype][form], told[part, EXACT][form])
                    rows.append(Row("harness", case, name, gap, "nats"))
    write(RESULTS, rows)
    for row in rows:
        sys.stdout.write(f"{row.case:20} {row.metric:40} {row.value:12.6g} {row.unit}\n")


if __name__ == "__main__":
    if len(sys.argv) > 2:  # a side, asked for by `_child`
        _run(sys.argv[2], Path(sys.argv[1]), sys.argv[3])
    elif len(sys.argv) == 2:
        main(Path(sys.argv[1]).resolve())
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
