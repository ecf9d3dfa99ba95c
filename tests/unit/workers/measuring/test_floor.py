"""Which windows the noise floor is measured on, and that more are where it is not 0."""

import json
from itertools import pairwise
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from workers.distributions.reference_store import ReferenceStore, StoredHidden
from workers.distributions.token_values import Positions
from workers.engine.scoring import ScoringEngine
from workers.measuring import floor as module
from workers.measuring.floor import Floor, floor_windows, is_zero, noise_floor
from workers.measuring.sides import Side
from workers.process.handler import JobContext
from workers.text.windows import Corpus


@pytest.mark.parametrize(
    ("lengths", "few", "many"),
    [
        ([512], 1, 1),
        ([512] * 3, 3, 3),  # a text of fewer than four windows: all of it
        ([512] * 7, 4, 7),
        ([512] * 20, 4, 8),
        ([512] * 60, 6, 8),
        ([512] * 1000, 8, 8),
        ([2048] * 1000, 2, 2),  # 4,096 tokens are two windows
        ([8192] * 10, 1, 1),  # never none
        ([64] * 400, 40, 64),
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


def test_its_windows_lie_all_over_the_text() -> None:
    for chosen in floor_windows([512] * 100):
        gaps = [later - earlier for earlier, later in pairwise([-1, *chosen, 100])]
        assert max(gaps) <= 100 / len(chosen) + 1


def test_what_is_not_finite_is_not_zero() -> None:
    assert is_zero(np.zeros(3))
    assert is_zero(np.zeros(0))
    assert not is_zero(np.asarray([0.0, np.nan]))
    assert not is_zero(np.asarray([0.0, 1e-300]))


class PlayedStore:
    """Keeps one sidecar."""

    def __init__(self) -> None:
        self.kept: dict[str, object] | None = None

    def get_sidecar(self, _key: str, _name: str) -> dict[str, object] | None:
        return self.kept

    def put_sidecar(self, _key: str, _name: str, value: dict[str, object]) -> None:
        self.kept = json.loads(json.dumps(value))


def measure(monkeypatch: pytest.MonkeyPatch, store: PlayedStore, kl: float, step: int = 8) -> tuple[Floor, list[int]]:
    """The floor of 20 documents of one window, 512 tokens each, at which the engine repeats itself up to `kl`; and of
    how many windows each measurement was."""
    where = np.repeat(np.arange(20), 511)
    asked = []

    def divergence_of(_engine: object, windows: list[object], *_: object, **__: object) -> tuple[SimpleNamespace, int]:
        asked.append(len(windows))
        found = np.full(511 * len(windows), kl, dtype=np.float32)
        return SimpleNamespace(finite=np.ones(found.size, np.bool_), kl=found), 0

    monkeypatch.setattr(module, "divergence_of", divergence_of)
    monkeypatch.setattr(module, "Divergence", lambda *_, **__: None)
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
        context=cast(JobContext, None),
    )
    return floor, asked


def test_a_batch_is_no_larger_than_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    floor, _ = measure(monkeypatch, PlayedStore(), 0.0, step=154)
    assert floor.report.batch_shapes == (20, 1)


def test_where_it_is_zero_a_few_windows_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    store = PlayedStore()
    floor, asked = measure(monkeypatch, store, 0.0)
    assert asked == [4]
    assert (floor.report.tokens, floor.report.kl.mean, floor.report.batch_shapes) == (4 * 511, 0.0, (8, 1))
    assert np.isfinite(floor.kl).sum() == 4 * 511
    again, asked = measure(monkeypatch, store, 1.0)
    assert asked == []
    assert again.report == floor.report


def test_where_it_is_not_more_windows_tell_how_large_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    store = PlayedStore()
    floor, asked = measure(monkeypatch, store, 1e-5)
    assert asked == [4, 8]
    assert floor.report.tokens == 8 * 511
    assert floor.report.kl.mean == pytest.approx(1e-5)
    again, asked = measure(monkeypatch, store, 0.0)
    assert asked == []
    assert again.report == floor.report


def test_what_was_kept_of_other_windows_is_measured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    store = PlayedStore()
    store.kept = {"windows": [0, 1], "kl": [0.0] * 1022}
    assert measure(monkeypatch, store, 0.0)[1] == [4]
    store.kept = {"windows": [2, 7, 12, 17], "kl": [1e-5] * 2044}  # few, and not zero: an older version stopped there
    assert measure(monkeypatch, store, 1e-5)[1] == [4, 8]
