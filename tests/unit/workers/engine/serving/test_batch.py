"""Whose version the rows of a pass get: those of dummy runs none."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from app.contracts.deployment import IDENTITY
from workers.calibrators.blocks import Blocks
from workers.calibrators.kinds import Chain
from workers.calibrators.temperature import Temperature
from workers.engine.blocks import Slots
from workers.engine.serving.batch import VERSION, Batch, Pass
from workers.engine.serving.counters import Counters
from workers.engine.serving.nonfinite import EndedRequests
from workers.engine.serving.rows import Change
from workers.engine.serving.versions import Versions

CORRECTED = "cal-0000000000000001"
WITHIN = "cal-0000000000000002"
BLOCKS = Blocks({}, layers=3, hidden_size=4)
CALIBRATORS = {CORRECTED: Temperature(2.0), WITHIN: Chain([BLOCKS, Temperature(2.0)])}
HEAD_VD = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))


def head(hidden_TD: torch.Tensor) -> torch.Tensor:
    return hidden_TD @ HEAD_VD.T


def hidden(rows: int) -> torch.Tensor:
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(rows))


def unread() -> Pass:
    raise AssertionError("nobody asks where a dummy run's states lie")


class Engine:
    """A batch of two requests that want a correction, as a runner drives it."""

    def __init__(
        self, versions: tuple[str, str] = (CORRECTED, CORRECTED), on_all_ranks: Callable[[bool], bool] = bool
    ) -> None:
        self.versions = versions
        self.counters, self.ended = Counters("bot"), EndedRequests()
        self.batch = Batch(
            versions=cast(Versions, SimpleNamespace(find=lambda version: CALIBRATORS[version])),
            ended=self.ended,
            counters=self.counters,
            hidden=None,
            end_token=0,
            device=torch.device("cpu"),
            on_all_ranks=on_all_ranks,
        )

    def step(self) -> torch.Tensor:
        """Logits of a step: of the first one, in which both come, or of a later one."""
        self.batch.update(None if self.batch.map.rows else self._both())
        self.batch.passed(lambda: Pass(torch.tensor([1, 2]), torch.tensor([0, 0]), lambda: [0, 1], hidden(2)))
        return self.batch.compute_logits(hidden(2), head)

    def dummy(self, rows: int, states_TD: torch.Tensor | None = None) -> torch.Tensor:
        """Logits of a dummy run, before which the runner tells of no batch."""
        self.batch.passed(unread)
        return self.batch.compute_logits(hidden(rows) if states_TD is None else states_TD, head)

    def rows(self) -> tuple[float, float]:
        """(corrected, plain) as counted."""
        samples = {
            sample.labels["calibrated"]: sample.value
            for family in self.counters.registry.collect()
            for sample in family.samples
            if sample.name == "hemostat_serving_rows_total"
        }
        return samples["yes"], samples["no"]

    def _both(self) -> Change:
        def added(row: int) -> tuple[int, Any, list[int], list[int]]:
            params = SimpleNamespace(extra_args={VERSION: self.versions[row]}, _eos_token_id=0, stop_token_ids=None)
            return row, params, [row + 1], []

        return SimpleNamespace(removed=[], added=[added(0), added(1)], moved=[])


def corrected() -> torch.Tensor:
    return head(hidden(2)).float() / 2.0


def test_the_rows_of_a_step_get_their_requests_version() -> None:
    engine = Engine()
    assert torch.equal(engine.step(), corrected())
    assert engine.rows() == (2, 0)


@pytest.mark.parametrize("rows", [1, 2, 64])
def test_dummy_runs_get_no_version(rows: int) -> None:
    """Profiling and warming up, before the first step and between two, also with as many rows as the batch has."""
    engine = Engine()
    assert torch.equal(engine.dummy(rows), head(hidden(rows)))
    engine.step()
    assert torch.equal(engine.dummy(rows), head(hidden(rows)))
    assert torch.equal(engine.dummy(rows), head(hidden(rows)))
    assert engine.rows() == (2, 0), "nothing of a dummy run is counted"
    assert torch.equal(engine.step(), corrected()), "the next step is a step again"
    assert engine.rows() == (4, 0)


def test_a_dummy_run_that_is_not_finite_ends_nobodys_request() -> None:
    engine = Engine()
    engine.step()
    assert engine.dummy(2, torch.full((2, 4), torch.nan)).isnan().all()
    assert (len(engine.ended), engine.batch.tainted) == (0, False)
    assert engine.batch.force(torch.zeros(2, 16)).eq(0).all()


class Room:
    """As many slots as are wanted, and what was marked."""

    def __init__(self, most: int = 3) -> None:
        self.most, self.marked = most, list[list[int]]()

    def place(self, wanted: Sequence[Blocks | None]) -> list[int]:
        return [0 if one is None else min(1, self.most) for one in wanted]

    def mark(self, slots: list[int]) -> None:
        self.marked.append(slots)


@pytest.mark.parametrize(
    ("versions", "rows", "tokens"),
    [
        ((WITHIN, "identity"), [1, 0], [1, 1, 1, 0, 0]),
        (("identity", WITHIN), [0, 1], [0, 0, 0, 1, 1]),
        ((WITHIN, WITHIN), [1, 1], [1, 1, 1, 1, 1]),
    ],
)
def test_the_tokens_of_a_pass_get_their_requests_blocks(
    versions: tuple[str, str], rows: list[int], tokens: list[int]
) -> None:
    batch = (engine := Engine(versions)).batch
    batch.slots = cast(Slots, room := Room())
    batch.update(engine._both())
    assert room.marked == [rows], "one token for each, if the pass is replayed"
    batch.entering(lambda: [0, 3, 5])
    assert room.marked[-1] == tokens
    batch.passed(lambda: Pass(torch.arange(5), torch.arange(5), lambda: [0, 3, 5], hidden(5)))
    batch.compute_logits(hidden(2), head)
    batch.entering(lambda: [0, 3, 5])
    assert room.marked[-1] == [], "a dummy run after it gets none"


def test_a_request_whose_blocks_have_no_room_is_ended() -> None:
    engine = Engine((WITHIN, CORRECTED))
    engine.batch.slots = cast(Slots, Room(most=0))
    engine.step()
    assert engine.batch.ends == {0: 0}


def test_a_version_that_another_part_of_the_model_lacks_ends_its_requests_here_too() -> None:
    engine = Engine((CORRECTED, IDENTITY), on_all_ranks=lambda _: False)
    engine.step()
    assert engine.batch.ends == {0: 0}


def test_only_versions_with_blocks_change_keys_and_values() -> None:
    assert not Engine().batch.corrects_blocks(CORRECTED)
    assert Engine().batch.corrects_blocks(WITHIN)
