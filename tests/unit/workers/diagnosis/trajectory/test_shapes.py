"""Shaped distances of a job: what is kept, and how often the heads are read."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from app.contracts.decoding import MinP, TopK
from workers.decoding.distances import shaped_distances
from workers.diagnosis.trajectory.shapes import distances_after
from workers.distributions.head import Head
from workers.process.handler import JobContext
from workers.text.windows import Window

SHAPINGS = (TopK(name="top_k", k=4), MinP(name="min_p"))
WINDOWS = [
    Window(number, 0, np.zeros(6, dtype=np.int32), np.array([False, False, True, True, True])) for number in range(3)
]


def head(seed):
    weights = torch.randn(60, 8, generator=torch.Generator().manual_seed(seed))
    return Head(weights, None, 1.0, None, f"{seed}")


def states(index):
    one = torch.randn(5, 8, generator=torch.Generator().manual_seed(index))
    return one, one + 0.3 * torch.randn(5, 8, generator=torch.Generator().manual_seed(100 + index))


class Told:
    """A job that notes its progress and may be lost."""

    def __init__(self):
        self.progressed = []
        self.context = cast(
            JobContext,
            SimpleNamespace(check_cancelled=lambda: None, progress=lambda *told: self.progressed.append(told)),
        )


def test_they_are_those_of_all_positions_at_once_and_the_heads_are_read_once(tmp_path, monkeypatch):
    reads = []
    logits = Head.logits
    monkeypatch.setattr(Head, "logits", lambda self, hidden: reads.append(len(hidden)) or logits(self, hidden))
    heads, told = (head(1), head(2)), Told()

    found = distances_after(SHAPINGS, WINDOWS, states, heads, folder=tmp_path, context=told.context)

    assert sum(reads) == 2 * 9  # both heads, three scored positions of each of three windows
    pairs = [tuple(side[2:] for side in states(index)) for index in range(3)]
    expected = shaped_distances(pairs, *heads, SHAPINGS)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.tv, other.tv)
        np.testing.assert_allclose(one.kl, other.kl)
    assert told.progressed[-1] == ("shapes", 9, 9)


def test_what_an_earlier_attempt_computed_is_not_computed_again(tmp_path):
    heads = (head(1), head(2))
    first = Told()

    def lost(index):
        if index == 2:
            raise InterruptedError
        return states(index)

    with pytest.raises(InterruptedError):
        distances_after(SHAPINGS, WINDOWS, lost, heads, folder=tmp_path, context=first.context)
    asked = []
    found = distances_after(
        SHAPINGS,
        WINDOWS,
        lambda index: asked.append(index) or states(index),
        heads,
        folder=tmp_path,
        context=Told().context,
    )
    assert asked == [2]
    assert [len(one) for one in found] == [9, 9]


def test_without_a_shaping_nothing_is_read(tmp_path):
    assert distances_after((), WINDOWS, states, (head(1), head(2)), folder=tmp_path, context=Told().context) == []
