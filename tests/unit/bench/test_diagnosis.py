"""Memory of an attribution is looked at after each swap of a layer, the last one included."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from app.kinds.attribute.request import LEVELS
from app.settings import Settings
from tests.bench.diagnosis import SwapContext
from tests.unit.workers.diagnosis.attribute.planted import Planted, parts
from workers.diagnosis.attribute.looking import Looking
from workers.diagnosis.attribute.search import Search


def test_memory_is_looked_at_after_each_swap(tmp_path: Path) -> None:
    context = SwapContext(Settings(home=tmp_path), "attribute", swaps=5)
    held: list[Any] = []
    swapper = Planted(5, frozenset({"layers.4"}))
    kl = swapper.kl

    def holding(*given: Any, **options: Any) -> Any:
        held.append(np.ones(64 << 20, np.uint8))
        return kl(*given, **options)

    swapper.kl = holding  # type: ignore[method-assign]
    layers = [site for site in parts(5) if site.whole]
    search = Search(cast("Any", swapper), layers, LEVELS, 64.0, 1, cast("Any", context))
    search.run()
    after = context.resident.after
    assert list(after) == [0, 1, 2, 3, 4]
    looking = Looking(
        cast("Any", swapper),
        search,
        cast("Any", None),
        cast("Any", SimpleNamespace(seed=0)),
        cast("Any", context),
        kl([layers[0]], batches=2),
    )
    looking._step()
    assert after[5] - after[1] == pytest.approx(4 * 64, rel=0.5)
    assert len(held) == 5
