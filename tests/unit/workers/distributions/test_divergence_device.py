"""The divergence beside a device that computes while the host goes on: nothing is read there before it is asked for."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.distributions import case
from tests.support.divergences import HEADS, PLAIN, PRECISIONS
from tests.support.second_device import WAITED, second_device
from workers.distributions import divergence as module
from workers.distributions.divergence import Divergence, Precision
from workers.distributions.token_values import FIELDS, TokenValues

pytestmark = pytest.mark.usefixtures("eager")


def test_what_the_host_waits_for_is_seen() -> None:
    """A number that is read, a mask whose rows are counted, and copies, unless they are asked not to wait."""
    with second_device() as device:
        there = torch.ones(3).to(device)
        bool(there.isfinite().all())
        there[there > 0].to("cpu", non_blocking=True)
        there.cpu()
    assert WAITED == ["aten::_to_copy", "aten::_local_scalar_dense", "aten::index", "aten::_to_copy"]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("heads", HEADS)
def test_every_step_to_the_values_runs_where_no_number_can_be_read(heads: str, precision: Precision) -> None:
    """A tensor of meta has no numbers: an operator that has to know one raises."""
    given = case(*HEADS[heads], 300, by=0.05)
    made = Divergence(given.reference, given.candidate, precision=precision, device="meta")
    parts = made._parts(given.reference_TD, given.candidate_TD, given.next_T, lambda: None)
    assert [tuple(part.shape) for part in parts] == [(len(module._VALUES), 300), (len(module._COUNTS), 300), (2, 300)]
    assert {part.device.type for part in parts} == {"meta"}


@pytest.mark.parametrize("heads", ["plain", "bias, soft cap and scale", "weights differ", "widths differ"])
def test_the_host_waits_for_the_device_once_when_values_are_read(heads: str) -> None:
    given = case(*HEADS[heads], 300, by=0.05)
    h = given.reference_TD.clone()
    h[7, 3] = torch.nan
    on_host = Divergence(given.reference, given.candidate, device="cpu")(h, given.candidate_TD, given.next_T)
    with second_device() as device:
        made = Divergence(given.reference, given.candidate, device=device)
        WAITED.clear()
        started = made.start(h, given.candidate_TD, given.next_T)
        assert not WAITED
        ready = [started.ready]
        found = started.values()
        assert [*ready, started.ready] == [False, True]
        assert not WAITED
    assert not found.finite[7]
    for name in FIELDS:
        assert np.array_equal(getattr(found, name), getattr(on_host, name), equal_nan=True), name


def test_on_a_cpu_values_are_there_at_once() -> None:
    given = case(PLAIN, PLAIN, 20, by=0.05)
    started = Divergence(PLAIN, PLAIN, device="cpu").start(given.reference_TD, given.candidate_TD, given.next_T)
    assert started.ready


def test_no_position_has_no_values() -> None:
    given = case(PLAIN, PLAIN, 20, by=0.05)
    nothing = replace(
        given, reference_TD=given.reference_TD[:0], candidate_TD=given.candidate_TD[:0], next_T=given.next_T[:0]
    )
    found = Divergence(PLAIN, PLAIN, device="cpu")(nothing.reference_TD, nothing.candidate_TD, nothing.next_T)
    for name in FIELDS:
        column, right = getattr(found, name), getattr(TokenValues.concat([]), name)
        assert (column.shape, column.dtype) == (right.shape, right.dtype), name
