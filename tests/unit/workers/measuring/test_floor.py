"""Which windows the noise floor is measured on, and that more are where it is not 0."""

import json
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from workers.distributions.reference_store import ReferenceStore, StoredHidden
from workers.distributions.token_values import Positions
from workers.engine.pool import EnginePool
from workers.engine.scoring import ScoringEngine
from workers.measuring import floor as module
from workers.measuring.floor import Floor, floor_windows, noise_floor
from workers.measuring.sides import Side
from workers.process.handler import JobContext
from workers.text.windows import Corpus


@pytest.mark.parametrize(
    ("lengths", "few", "many"),
    [
        ([512] * 3, 3, 3),  # a text of fewer than four windows: all of it
        ([512] * 20, 4, 8),
        ([512] * 60, 6, 8),
        ([512] * 1000, 8, 8),
        ([8192] * 10, 1, 1),  # never none
        ([512] + [10] * 100, 10, 101),  # one long document among many short ones
    ],
)
def test_one_window_in_ten_shows_whether_it_is_zero_and_4096_tokens_how_large(
    lengths: list[int], few: int, many: int
) -> None:
    first, second = floor_windows(lengths)
    assert (len(first), len(second)) == (few, many)
    for chosen in (first, second):
        assert chosen == sorted(set(chosen))
        assert max(chosen) < len(lengths)


class PlayedStore:
    """Keeps one sidecar."""

    def __init__(self) -> None:
        self.kept: dict[str, object] | None = None

    def get_sidecar(self, _key: str, _name: str) -> dict[str, object] | None:
        return self.kept

    def put_sidecar(self, _key: str, _name: str, value: dict[str, object]) -> None:
        self.kept = json.loads(json.dumps(value))


def measure(monkeypatch: pytest.MonkeyPatch, store: PlayedStore, kl: float, step: int) -> tuple[Floor, list[int]]:
    """The floor of 20 documents of one window, 512 tokens each, at which the engine repeats itself up to `kl`; and of
    how many windows each measurement was."""
    where = np.repeat(np.arange(20), 511)
    asked = []

    def divergence_of(_engine: object, windows: list[object], *_: object, **__: object) -> tuple[SimpleNamespace, int]:
        asked.append(len(windows))
        found = np.full(511 * len(windows), kl, dtype=np.float32)
        return SimpleNamespace(finite=np.ones(found.size, np.bool_), kl=found), 0

    monkeypatch.setattr(module, "divergence_of", divergence_of)
    monkeypatch.setattr(module, "divergence_beside", lambda *_, **__: None)
    corpus = SimpleNamespace(windows=[SimpleNamespace(tokens=[0] * 512)] * 20)
    floor = noise_floor(
        cast(ScoringEngine, SimpleNamespace(windows_per_step=lambda _: step)),
        cast(Side, SimpleNamespace(head=None)),
        cast(Corpus, corpus),
        Positions(where, where, np.tile(np.arange(1, 512), 20), np.ones_like(where), np.ones_like(where)),
        cast(StoredHidden, None),
        store=cast(ReferenceStore, store),
        key="key",
        precision="fast",
        pool=cast(EnginePool, None),
        context=cast(JobContext, None),
    )
    return floor, asked


@pytest.mark.parametrize(("kl", "windows", "step", "batch"), [(0.0, [4], 8, 8), (1e-5, [4, 8], 154, 20)])
def test_where_it_is_zero_a_few_windows_are_enough_and_else_more_are_measured(
    monkeypatch: pytest.MonkeyPatch, kl: float, windows: list[int], step: int, batch: int
) -> None:
    store = PlayedStore()
    floor, asked = measure(monkeypatch, store, kl, step)
    assert asked == windows
    assert (floor.report.tokens, floor.report.batch_shapes) == (windows[-1] * 511, (batch, 1))
    assert floor.report.kl.mean == pytest.approx(kl)
    assert np.isfinite(floor.kl).sum() == windows[-1] * 511
    again, asked = measure(monkeypatch, store, 1.0, step)
    assert asked == []
    assert again.report == floor.report
