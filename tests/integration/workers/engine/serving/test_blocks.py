"""Corrections within the layers, row by row: each request against transformers with the same corrections by hooks."""

from pathlib import Path

import pytest
import torch

from tests.integration.workers.engine.serving.conftest import Oracle, Served, Start, Tiny, Wanted
from tests.support.blocks import corrections, hooked
from tests.support.copies import copier
from workers.calibrators.base import Base
from workers.calibrators.blocks import Blocks
from workers.calibrators.kinds import Chain
from workers.calibrators.temperature import Temperature
from workers.engine.blocks import write

# More than a block of the key-value cache, which requests with the same beginning share.
LONG = [3 + index % 300 for index in range(150)]
PROMPTS = (LONG, LONG[:40], list(range(7, 27)))
FIRST, SECOND = corrections({0: 4, 2: 0}, seed=1), corrections({0: 2, 1: 3}, seed=2)
BOTH = Chain([FIRST, Temperature(1.5)])


@pytest.fixture(scope="module", params=[True, False], ids=["eager", "compiled"])
def eager(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def served(start: Start, eager: bool) -> Served:
    """What is served is loaded after the model was compiled."""
    one = start("llama", enforce_eager=eager)
    one.want(*(one.save(calibrator, number) for number, calibrator in enumerate((FIRST, SECOND, BOTH), 1)))
    assert not one.hooked.versions.refused
    return one


def version(number: int) -> str:
    return f"cal-{number:016x}"


def agrees(tiny: Tiny, wanted: Wanted, blocks: Blocks | None = None, after: Base | None = None) -> None:
    oracle = Oracle(tiny("llama"))
    if blocks is not None:
        hooked(oracle.model, blocks)
    oracle.agrees(wanted, after)


def test_requests_of_several_versions_in_one_batch(served: Served, tiny: Tiny) -> None:
    cases = [(None, None), (FIRST, None), (SECOND, None), (FIRST, Temperature(1.5))]
    names = ["identity", *(version(number) for number in (1, 2, 3))]
    for _ in range(2):  # the second time prompts are read from the cache
        wanted = [Wanted(prompt, name) for prompt in PROMPTS for name in names]
        served.run(*wanted)
        for index, one in enumerate(wanted):
            agrees(tiny, one, *cases[index % len(cases)])
    assert len({tuple(one.drawn) for one in wanted[: len(cases)]}) > 1


def test_a_batch_of_one_version(served: Served, tiny: Tiny) -> None:
    for one in served.run(*(Wanted(prompt, version(2)) for prompt in PROMPTS)):
        agrees(tiny, one, SECOND)


def test_rows_without_a_version_are_plain_beside_others_bit_for_bit(served: Served, start: Start, eager: bool) -> None:
    prompts = [[5 + index, *range(40, 60)] for index in range(6)]
    plain = start("llama", hooked=False, enforce_eager=eager).run(*(Wanted(prompt) for prompt in prompts))
    mixed = served.run(*(Wanted(one, version(1) if index % 2 else "identity") for index, one in enumerate(prompts)))
    for index, (one, other) in enumerate(zip(plain, mixed, strict=True)):
        assert torch.equal(one.logprobs, other.logprobs) == (index % 2 == 0)


def test_a_version_that_comes_later_needs_no_other_engine(served: Served, tiny: Tiny) -> None:
    other = corrections({1: 5}, seed=3)
    served.want(served.save(other, 4), version(2))
    before, after = served.run(Wanted(PROMPTS[1], version(2)), Wanted(PROMPTS[1], version(4)))
    agrees(tiny, before, SECOND)
    agrees(tiny, after, other)


def test_a_checkpoints_own_corrections_come_first(start: Start, tiny: Tiny, tmp_path: Path, eager: bool) -> None:
    folder = copier(tiny, tmp_path)("llama")
    write(folder, SECOND)
    one = start("llama", checkpoint=folder, enforce_eager=eager)
    one.want(one.save(FIRST, 1))
    plain, corrected = one.run(Wanted(PROMPTS[1]), Wanted(PROMPTS[1], version(1)))
    agrees(tiny, plain, SECOND)
    oracle = Oracle(tiny("llama"))
    hooked(oracle.model, SECOND)
    hooked(oracle.model, FIRST)
    oracle.agrees(corrected)


def test_what_cannot_correct_blocks_refuses_the_version(start: Start) -> None:
    one = start("llama")
    one.want(one.save(corrections({0: 1}, layers=4), 1))
    assert one.hooked.versions.refused[version(1)].code == "profile_mismatch"
