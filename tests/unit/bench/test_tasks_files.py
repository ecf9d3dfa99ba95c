"""Published files become files that a job takes, with the prompts that their own fields would give."""

import bz2
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from app.contracts.task import FileTask
from app.models.tasks.reading import read_task
from app.settings import Settings
from tests.bench.tasks_files import arc, hellaswag, write_files

COUNTS = {"hellaswag": 2, "arc-challenge": 2, "gsm8k": 2, "humaneval": 2}


def endings(beginning: str, label: int = 1) -> str:
    return "\n".join([beginning, str(label), "one end.", "another end.", "a third.", "a fourth."]) + "\n"


def question(asked: str, answers: list[str], right: int) -> dict[str, str]:
    numbered = " ".join(f"Answer{place}: {answer}" for place, answer in enumerate(answers, 1))
    return {
        "instruction": f"Please choose the correct answer to the question: {asked}\n\n{numbered}\n\nAnswer format: "
        + "/".join(f"answer{place}" for place in range(1, len(answers) + 1)),
        "answer": f"answer{right}",
    }


def made(data: Path, *, train: bool = False) -> Path:
    """A folder of such files with invented items."""
    for name in ("hellaswag", "arc-challenge", "gsm8k", "humaneval"):
        (data / name).mkdir(parents=True)
    told = endings("Cooking: A pot stands on the stove. the water") + endings("Pets: How to feed a cat. Buy food.", 3)
    (data / "hellaswag" / "hellaswag_val_full.txt.bz2").write_bytes(bz2.compress(told.encode()))
    questions = [question("What is wet?", ["water", "sand"], 1), question("Why?\nSay.", ["no", "yes", "a b"], 3)]
    (data / "arc-challenge" / "test.json").write_text(json.dumps(questions))
    problems = [{"question": f"How many are {n} and 1?", "answer": f"#### {n + 1}"} for n in range(5)]
    lines = "".join(json.dumps(row) + "\n" for row in problems)
    (data / "gsm8k" / "test.jsonl").write_text(lines)
    if train:
        other = [{"question": f"How many are {n} and 2?", "answer": f"#### {n + 2}"} for n in range(3)]
        (data / "gsm8k" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in other))
    heads = [
        {"task_id": f"T/{n}", "prompt": f"def f{n}():\n", "entry_point": f"f{n}", "test": "def check(f):\n    f()\n"}
        for n in range(2)
    ]
    packed = gzip.compress("".join(json.dumps(row) + "\n" for row in heads).encode())
    (data / "humaneval" / "HumanEval.jsonl.gz").write_bytes(packed)
    return data


def read(root: Path, tasks: list[dict[str, Any]]) -> dict[str, list[Any]]:
    settings = Settings(home=root / "home", text_root=root)
    given = [FileTask.model_validate(task) for task in tasks]
    return {task.title: read_task(task, settings, seed=0, pointer="/tasks/0") for task in given}


def test_every_file_becomes_one_that_a_job_takes(tmp_path: Path) -> None:
    items = read(tmp_path / "texts", write_files(made(tmp_path / "data"), tmp_path / "texts", COUNTS))
    assert {name: len(found) for name, found in items.items()} == COUNTS
    assert [item.prompt for item in items["hellaswag"]] == [
        "Cooking: A pot stands on the stove. The water",
        "Pets: How to feed a cat. Buy food.",
    ]
    assert [item.choices[item.gold] for item in items["hellaswag"]] == ["another end.", "a fourth."]
    assert [item.prompt for item in items["arc-challenge"]] == [
        "Question: What is wet?\nAnswer:",
        "Question: Why?\nSay.\nAnswer:",
    ]
    assert [(item.choices, item.gold) for item in items["arc-challenge"]] == [
        (("water", "sand"), 0),
        (("no", "yes", "a b"), 2),
    ]
    assert [item.entry_point for item in items["humaneval"]] == ["f0", "f1"]


@pytest.mark.parametrize("train", [False, True])
def test_solved_problems_are_from_the_other_split_or_are_not_asked(tmp_path: Path, train: bool) -> None:
    tasks = write_files(made(tmp_path / "data", train=train), tmp_path / "texts", {"gsm8k": 5 if train else 3})
    items = read(tmp_path / "texts", tasks)["gsm8k"]
    shown = "and 2?" if train else "0 and 1?"
    assert all(shown in item.prefix and item.prefix.count("####") == 2 for item in items)
    assert all("0 and 1?" not in item.prompt or train for item in items)


@pytest.mark.parametrize(
    ("context", "parts"),
    [
        ("A man runs. He falls. he", ("A man runs. He falls.", "he")),
        ('It says "stop!" on it. a man called " Bo "', ('It says "stop!" on it.', 'a man called " Bo "')),
        (". a dog in Rome", (".", "a dog in Rome")),
        ("A man walks his dog He", ("A man walks his dog He", "")),
        ("A man meets Mr. Smith. Mr. Smith", ("A man meets Mr. Smith. Mr. Smith", "")),
        ("How to swim. Put on a suit.", ("How to swim. Put on a suit.", "")),
        ("How to clean a van fast. you", ("How to clean a van fast.", "you")),
    ],
)
def test_the_last_sentence_is_taken_apart_only_where_it_begins_small(context: str, parts: tuple[str, str]) -> None:
    (row,) = hellaswag(endings(f"Sports: {context}"))
    assert (row["ctx_a"], row["ctx_b"]) == parts


def test_other_files_are_refused_by_name_and_without_their_text() -> None:
    with pytest.raises(ValueError, match="HellaSwag: 5 lines") as lines:
        list(hellaswag("secret\n" * 5))
    with pytest.raises(ValueError, match="HellaSwag, line 7") as label:
        list(hellaswag(endings("A: b.") + endings("A: secret.").replace("1", "one")))
    bad = question("secret", ["a", "b"], 3)
    with pytest.raises(ValueError, match="ARC-Challenge, item 1") as key:
        list(arc([question("What?", ["a", "b"], 2), bad]))
    with pytest.raises(ValueError, match="ARC-Challenge, item 0") as other:
        list(arc([{"instruction": "secret", "answer": "answer1"}]))
    assert all("secret" not in str(error.value) for error in (lines, label, key, other))
