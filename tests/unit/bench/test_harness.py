"""Answers beside the harness' own: what is counted as different, and what is asked."""

import dataclasses
from pathlib import Path

import pytest

from app.contracts.task import FileTask
from app.models.tasks.reading import read_task
from app.settings import Settings
from tests.bench.harness import differences, mean_gap
from tests.bench.harness_items import write_items
from tests.bench.harness_told import FORMATS, Told

CHOSEN = Told("Q", (-1.0, -2.0), "", {"acc": "a", "acc_norm": "b"}, {"acc": True, "acc_norm": False})


def test_each_difference_is_counted_where_it_is() -> None:
    other = dataclasses.replace(
        CHOSEN,
        prompt="q",
        logp=(-1.0, -2.5),
        said={"acc": "b", "acc_norm": "b"},
        right={"acc": False, "acc_norm": False},
    )
    found = {row.metric: row.value for row in differences("harness", "arc", [CHOSEN, CHOSEN], [CHOSEN, other])}
    assert found == {
        "items": 2,
        "different_prompts": 1,
        "choices": 4,
        "largest_difference": 0.5,
        "mean_difference": 0.125,
        "acc_different_answers": 1,
        "acc_different_right": 1,
        "acc_harness": 0.5,
        "acc_norm_different_answers": 0,
        "acc_norm_different_right": 0,
        "acc_norm_harness": 0.0,
    }


def test_rounding_is_the_mean_over_choices() -> None:
    rounded = dataclasses.replace(CHOSEN, logp=(-1.25, -2.25))
    assert mean_gap([CHOSEN, rounded], [CHOSEN, CHOSEN]) == 0.125


def test_other_items_or_other_choices_are_no_comparison() -> None:
    with pytest.raises(ValueError, match="zip"):
        differences("harness", "arc", [CHOSEN], [CHOSEN, CHOSEN])
    with pytest.raises(ValueError, match="zip"):
        differences("harness", "arc", [CHOSEN], [dataclasses.replace(CHOSEN, logp=(-1.0,))])


def test_the_items_are_files_that_a_job_takes_and_tell_characters_from_bytes(tmp_path: Path) -> None:
    write_items(tmp_path)
    settings = Settings(home=tmp_path / "home", text_root=tmp_path)
    choices: list[str] = []
    for form in FORMATS:
        task = FileTask(source="file", format=form, path=f"{form}.jsonl")
        items = read_task(task, settings, seed=0, pointer="/tasks/0")
        assert len({(item.context, item.choices) for item in items}) == len(items)
        choices += [choice for item in items for choice in item.choices]
    assert any(len(choice) != len(choice.encode()) for choice in choices)
    assert any(choice.startswith(" ") for choice in choices)
