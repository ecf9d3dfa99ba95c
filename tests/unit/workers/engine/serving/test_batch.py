"""Whose version the rows of a pass get: those of dummy runs none."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from workers.calibrators.temperature import Temperature
from workers.engine.serving.batch import VERSION, Batch, Pass
from workers.engine.serving.counters import Counters
from workers.engine.serving.nonfinite import EndedRequests
from workers.engine.serving.rows import Change
from workers.engine.serving.versions import Versions

CORRECTED = "cal-0000000000000001"
HEAD_VD = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))


def head(hidden_TD: torch.Tensor) -> torch.Tensor:
    return hidden_TD @ HEAD_VD.T


def hidden(rows: int) -> torch.Tensor:
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(rows))


def unread() -> Pass:
    raise AssertionError("nobody asks where a dummy run's states lie")


class Engine:
    """A batch of two requests that want a correction, as a runner drives it."""

    def __init__(self) -> None:
        self.counters, self.ended = Counters("bot"), EndedRequests()
        self.batch = Batch(
            versions=cast(Versions, SimpleNamespace(find=lambda version: Temperature(2.0))),
            ended=self.ended,
            counters=self.counters,
            hidden=None,
            end_token=0,
            device=torch.device("cpu"),
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

    @staticmethod
    def _both() -> Change:
        def added(row: int) -> tuple[int, Any, list[int], list[int]]:
            params = SimpleNamespace(extra_args={VERSION: CORRECTED}, _eos_token_id=0, stop_token_ids=None)
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
