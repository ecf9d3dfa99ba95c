"""From values of tokens to likelihoods of choices: each model is judged by its own numbers."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from app.contracts.notice import Notice
from app.contracts.task import METRICS, FileTask
from app.kinds.tasks.report import AnyTaskResult, FlipPrediction, NotFinite
from app.kinds.tasks.request import TasksRequest
from app.models.tasks.items import Item
from app.settings import Settings
from tests.support.attempts import Context
from tests.support.distributions import one_sided
from tests.support.tiny import make_tokenizer
from workers.answering.answers import choose
from workers.answering.likelihood import gathered, likelihoods
from workers.answering.pair import Answered
from workers.answering.prompts import Prompts, choice_prompts
from workers.diagnosis.tasks.job import _broken, _warnings
from workers.diagnosis.tasks.result import Planned, results
from workers.distributions.token_values import TokenValues

ITEMS = [Item(f"{number}", "The fox", choices=("jumps over", "sleeps"), gold=number % 2) for number in range(100)]
REQUEST = TasksRequest.model_validate({"kind": "tasks", "reference": {"model": "a"}, "candidate": {"model": "b"}})
PLAN = Planned(
    FlipPrediction(status="none", rate=None, interval=None, sentence=""),
    "all",
)


def prompts() -> Prompts:
    return choice_prompts(ITEMS, make_tokenizer(), None, 64, pointer="", check_cancelled=lambda: None)


def values(asked: Prompts, broken: int) -> TokenValues:
    """Both models are sure of the right choice; at the tokens of the first `broken` items the candidate has none."""
    rows = [
        np.full(np.count_nonzero(window.scored), -0.1 if choice == ITEMS[item].gold else -9.0)
        for window, item, choice in zip(asked.windows, asked.item, asked.choice, strict=True)
    ]
    owner = np.repeat(asked.item, [len(row) for row in rows])
    logp = np.concatenate(rows).astype(np.float32)
    lost = owner < broken
    alone = one_sided(logp)
    return replace(
        alone,
        finite=~lost,
        kl=np.where(lost, np.float32(np.nan), np.float32(0)),
        logp_candidate=np.where(lost, np.float32(np.nan), logp),
    )


def test_the_start_of_the_engine_is_told_before_it_begins(tmp_path: Path) -> None:
    class Room:
        def engine(self, *_: object, **__: object) -> Any:
            raise InterruptedError

    context = Context(Settings(home=tmp_path), tmp_path)
    sides = SimpleNamespace(reference=SimpleNamespace(info=None), dtype="bfloat16")
    with pytest.raises(InterruptedError):
        likelihoods(
            prompts(), cast(Any, sides), room=cast(Any, Room()), store=cast(Any, None), context=context, scratch="0"
        )
    assert context.steps == [("engine", 0, 0)]


def result(*, broken: int, swapped: bool = False) -> AnyTaskResult:
    asked = prompts()
    found = values(asked, broken)
    if swapped:
        found = replace(found, logp_reference=found.logp_candidate, logp_candidate=found.logp_reference)
    likelihoods = gathered(asked, found)
    metrics = METRICS["arc"]
    sides = [
        {metric: choose(ITEMS, side, metric) for metric in metrics}
        for side in (likelihoods.reference, likelihoods.candidate)
    ]
    task = FileTask(source="file", format="arc", path="a.jsonl", name="fox")
    one = Answered(task, ITEMS, "f", sides[0], sides[1], "acc_norm", shortened=0, likelihoods=likelihoods)
    (told,) = results([one], [PLAN], REQUEST)
    return told


def not_finite(found: AnyTaskResult) -> list[Notice]:
    return [one for one in _warnings([found]) if one.code == "not_finite"]


def test_items_that_a_broken_candidate_loses_are_harmful_flips() -> None:
    found = result(broken=80)
    assert (found.flips.harmful, found.flips.both_right, found.flips.both_wrong) == (80, 20, 0)
    assert found.outcome == "worse"
    assert found.reference.mean == 1.0
    tokens = sum(int(np.count_nonzero(window.scored)) for window in prompts().windows) * 80 // 100
    assert found.not_finite_reference == NotFinite(positions=0, items=0)
    assert found.not_finite_candidate == NotFinite(positions=tokens, items=80)
    (warning,) = not_finite(found)
    assert warning.facts == {"task": "fox", "model": "candidate", "positions": tokens, "items": 80, "asked": 100}


def test_a_broken_reference_takes_nothing_from_the_candidate() -> None:
    found = result(broken=80, swapped=True)
    assert (found.flips.harmful, found.flips.helpful, found.flips.both_right) == (0, 80, 20)
    (warning,) = not_finite(found)
    assert warning.facts["model"] == "reference"


def test_kl_is_of_positions_where_both_are_numbers() -> None:
    asked = prompts()
    found = gathered(asked, values(asked, 80))
    assert np.array_equal(np.isnan(found.kl), found.item < 80)


def test_where_all_are_numbers_nothing_is_warned_of() -> None:
    found = result(broken=0)
    assert found.not_finite_candidate == NotFinite(positions=0, items=0)
    assert _broken(found) == (None, None)
    assert not not_finite(found)


@pytest.mark.parametrize("side", ["reference", "candidate"])
def test_one_token_without_a_number_spoils_its_choice_alone(side: str) -> None:
    asked = prompts()
    found = values(asked, 0)
    logp = getattr(found, f"logp_{side}").copy()
    logp[0] = np.inf
    told = gathered(asked, replace(found, **{f"logp_{side}": logp}))
    assert np.isnan(getattr(told, side)[0]).tolist() == [True, False]
    assert told.broken == ((1, 0) if side == "reference" else (0, 1))
