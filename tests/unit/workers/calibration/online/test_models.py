"""Whether a share of a GPU holds both models of a deployment at once: reckoned for Llama-3.1-8B on an H100."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from app.settings import Settings
from tests.unit.workers.engine.test_gpu_sizes import bytes_of, info_of
from workers.calibration.online import models as module
from workers.calibration.online.models import Models, never
from workers.distributions.head import Head

Tiny = Callable[..., Path]
V, D, LAYERS, KV_HEADS, HEAD = 128_256, 4096, 32, 8, 128
ENGINE = 2 * 8_030_261_248 + (4096 + 1024) * 2 * LAYERS * KV_HEADS * HEAD * 2 + 2**28
# A divergence holds the head and 2·512 rows of logits. A scorer has two of them, and the head once more.
DIVERGENCE = 2 * V * (D + 2 * 512)
SCORER = 2 * DIVERGENCE + 2 * V * D


class Room:
    """An engine room that starts nothing."""

    def __init__(self, asked: list[tuple[int, str]]) -> None:
        self.pool = SimpleNamespace(device="cuda", make_room=lambda needed, *, what: asked.append((needed, what)))
        self.share = 1.0

    def take_share(self, share: float) -> None:
        self.share = share

    def engine(self, *_: object, **__: object) -> object:
        return self


@pytest.mark.parametrize(("missing", "apart"), [(-1, True), (1, False)])
def test_both_models_are_apart_if_the_share_holds_them_and_the_scores(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, missing: int, apart: bool
) -> None:
    asked: list[tuple[int, str]] = []
    monkeypatch.setattr(module, "EngineRoom", lambda _: Room(asked))
    monkeypatch.setattr(module, "available_bytes", lambda _: 2 * ENGINE + SCORER - missing)
    monkeypatch.setattr(module, "total_bytes", lambda _: bytes_of(80))
    side = SimpleNamespace(
        info=info_of("Llama-3.1-8B", tiny),
        head=Head(torch.zeros((), dtype=torch.bfloat16).expand(V, D), None, 1.0, None, "one number"),
    )
    models = Models.__new__(Models)
    models.settings, models.dtype, models.longest, models._rooms = Settings(), "bfloat16", 4096, []
    models.sides = cast("Any", SimpleNamespace(reference=side, candidate=side))
    models._engines = models._start(0.5, never)
    assert models.apart is apart
    assert {cast("Any", room).share for room in models._rooms} == {0.5}
    assert [needed for needed, _ in asked] == ([] if apart else [ENGINE + SCORER + DIVERGENCE])
