from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from app.settings import Settings
from tests.unit.workers.calibration.online.making import rows
from workers.calibration.online.memory import RecentRows, passages

Tiny = Callable[..., Path]


def test_the_most_recent_requests_are_kept_within_the_budget() -> None:
    recent = RecentRows(25)
    for number in range(5):
        recent.add(f"r{number}", rows(10, seed=number))
    assert [one.name for one in recent.all()] == ["r3", "r4"]
    assert recent.tokens == 20
    assert torch.equal(recent.all()[1].rows.reference_TD, rows(10, seed=4).reference_TD)
    recent.add("huge", rows(26))
    recent.add("none", rows(0))
    assert [one.name for one in recent.all()] == ["r3", "r4"]
    recent.clear()
    assert recent.all() == []


def test_rows_do_not_keep_the_prompts_states_alive() -> None:
    recent, whole = RecentRows(100), rows(50)
    part = type(whole)(whole.reference_TD[40:], whole.candidate_TD[40:], whole.next_T[40:], whole.context)
    recent.add("r", part)
    kept = recent.all()[0].rows.reference_TD
    assert kept.untyped_storage().nbytes() == kept.nbytes


def test_passages_are_a_fixed_sample_of_the_calibration_corpus(tiny: Tiny, tmp_path: Path) -> None:
    settings, folder = Settings(home=tmp_path), tiny("llama")
    chosen = passages(settings, folder, longest=128, budget_tokens=600)
    again = passages(settings, folder, longest=128, budget_tokens=600)
    other = passages(settings, folder, longest=128, budget_tokens=600, seed=1)
    names = [passage.name for passage in chosen]
    assert names == [passage.name for passage in again] != [passage.name for passage in other]
    assert 128 < sum(int(passage.window.scored.sum()) for passage in chosen) <= 600
    assert all(len(passage.tokens) <= 128 for passage in chosen)
    assert passages(settings, folder, longest=128, budget_tokens=0) == []


def test_a_passages_rows_stand_where_they_are_scored(tiny: Tiny, tmp_path: Path) -> None:
    passage = passages(Settings(home=tmp_path), tiny("llama"), longest=64, budget_tokens=64)[0]
    states_TD = torch.arange(len(passage.tokens)).float()[:, None].repeat(1, 4)
    learned = passage.learned(states_TD, -states_TD).rows
    at = np.flatnonzero(passage.window.scored)
    assert learned.reference_TD[:, 0].tolist() == at.tolist()
    assert learned.context.position_T.tolist() == (at + 1).tolist()
    assert learned.context.token_T.tolist() == [passage.tokens[index] for index in at]
    assert learned.next_T.tolist() == [passage.tokens[index + 1] for index in at]
