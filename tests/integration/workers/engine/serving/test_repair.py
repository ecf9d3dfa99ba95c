"""A repair that is served beside the weights: every row has it, whichever calibration it has on top."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.workers.engine.serving.conftest import Oracle, Served, Start, Wanted
from tests.support.blocks import corrections, hooked
from tests.support.repairs import Factors, merge, random_factors, save_adapter
from workers.calibrators.temperature import Temperature
from workers.engine.repair import attach

Tiny = Callable[..., Path]
SCALE = 0.5
PROMPTS = ([3 + index % 300 for index in range(150)], list(range(7, 27)), [5])
VERSIONS = ("identity", "cal-0000000000000001", "cal-0000000000000002")
BLOCKS = corrections({0: 4, 2: 0}, seed=1)


@pytest.fixture(scope="module")
def factors(tiny: Tiny) -> Factors:
    return random_factors(tiny("llama"))


@pytest.fixture(scope="module", params=[True, False], ids=["eager", "compiled"])
def served(
    start: Start, tiny: Tiny, factors: Factors, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Served:
    folder = tmp_path_factory.mktemp("repair")
    attach(tiny("llama"), save_adapter(folder / "adapter", factors, scale=SCALE), folder / "served")
    one = start(checkpoint=folder / "served", enforce_eager=request.param)
    one.want(*(one.save(calibrator, number) for number, calibrator in enumerate((BLOCKS, Temperature(1.5)), 1)))
    assert not one.hooked.versions.refused
    return one


def test_each_row_is_repaired_and_calibrated_on_top(served: Served, tiny: Tiny, factors: Factors) -> None:
    """Of one batch, and again from the cache; against transformers in float32 with the product merged."""
    for _ in range(2):
        wanted = served.run(*(Wanted(prompt, version) for prompt in PROMPTS for version in VERSIONS))
        for index, one in enumerate(wanted):
            oracle = Oracle(tiny("llama"))
            merge(oracle.model, factors, scale=SCALE)
            if one.version == VERSIONS[1]:
                hooked(oracle.model, BLOCKS)
            oracle.agrees(one, Temperature(1.5) if one.version == VERSIONS[2] else None)
            if index < len(VERSIONS):
                with pytest.raises(AssertionError):
                    Oracle(tiny("llama")).agrees(one)
