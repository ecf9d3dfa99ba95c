"""What a refit is of, and how it divides what it learns from."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from app.settings import Settings
from tests.support.calibration import D, V, make_data, make_head
from tests.support.profiles import WIDTH, Chain, low_rank, record
from tests.unit.workers.calibration.online.making import rows
from workers.calibration.online.compute import Compute
from workers.calibration.online.memory import Learned
from workers.calibration.online.refit import USUAL, Refitter, Work, divide
from workers.calibration.online.scoring import Rows
from workers.calibration.profiles import ProfileStore
from workers.calibrators.base import Base
from workers.calibrators.blocks import Blocks
from workers.calibrators.lowrank import LowRank
from workers.calibrators.protocol import RowContext
from workers.calibrators.temperature import Temperature


@pytest.mark.parametrize(
    ("active", "kinds"),
    [
        (Temperature(1.5), "temperature"),
        (Chain([low_rank(), Temperature(1.5)]), "lowrank+temperature"),
        (Chain([Blocks({}, layers=3, hidden_size=WIDTH), Temperature(1.5)]), "blocks+temperature"),
        (Blocks({}, layers=3, hidden_size=WIDTH), "blocks+token_bias+confidence"),
    ],
)
def test_a_refit_is_of_the_active_versions_kinds_where_they_can_be_fitted(
    tmp_path: Path, active: Base, kinds: str
) -> None:
    settings = Settings(home=tmp_path)
    store = ProfileStore(settings)
    version = store.put(active, record()).version
    refitter = Refitter(settings, Compute("scores"), store)
    assert refitter.kinds(version) == kinds
    assert refitter.kinds("identity") == refitter.kinds("cal-" + "0" * 16) == USUAL


def test_windows_of_one_document_are_never_fitted_and_stopped_by() -> None:
    passages = [Learned(f"d{number // 8}/{number}", rows(5, seed=number), f"d{number // 8}") for number in range(80)]
    traffic = [Learned(f"r{number}", rows(5, seed=number)) for number in range(10)]
    fitted, stopping = divide({"traffic": traffic, "fitting-set": passages}, seed=3)
    documents = [{one.whole for source, one in part if source == "fitting-set"} for part in (fitted, stopping)]
    assert [len(found) for found in documents] == [8, 2]
    assert documents[0].isdisjoint(documents[1])
    assert sum(source == "traffic" for source, _ in stopping) == 2
    assert len(fitted) + len(stopping) == 90
    assert divide({"traffic": traffic, "fitting-set": passages}, seed=3) == (fitted, stopping)
    assert divide({"traffic": traffic, "fitting-set": passages}, seed=4) != (fitted, stopping)


@pytest.mark.parametrize(
    "many", [[], [Learned("r", rows(5))], [Learned("d/0", rows(5), "d"), Learned("d/1", rows(5), "d")]]
)
def test_one_document_alone_is_too_little(many: list[Learned]) -> None:
    with pytest.raises(ValueError, match="too little"):
        divide({"traffic": many}, seed=0)


def made_models() -> Any:
    head = make_head(dtype=torch.float32)
    reference, candidate = SimpleNamespace(head=head), SimpleNamespace(head=head)
    return SimpleNamespace(sides=SimpleNamespace(reference=reference, candidate=candidate), vocabulary=V)


def damaged() -> list[Learned]:
    """Requests whose candidate has other states than the reference."""
    data = make_data(lambda h: 1.2 * h + 0.2, rows=800)
    many = []
    for number, part in enumerate(torch.arange(800).split(40)):
        token_T = data.context.token_T[part]
        context = RowContext(data.context.position_T[part], token_T)
        own = Rows(data.reference_TD[part].float(), data.candidate_TD[part].float(), token_T, context)
        many.append(Learned(f"r{number}", own))
    return many


def test_a_correction_is_fitted_to_recent_rows() -> None:
    work = Work(made_models(), damaged(), [], "lowrank", 0, lambda: None)
    made, sets = work.run()
    assert isinstance(made, LowRank)
    assert made.hidden_size == D
    assert cast(float, work.told["stop_kl"]) < 0.5 * cast(float, work.told["raw_kl"])
    assert [found.documents for found in sets] == [16, 4]


def test_corrections_after_each_block_stay_as_they_are() -> None:
    blocks = Blocks({}, layers=3, hidden_size=D)
    made, _ = Work(made_models(), damaged(), [], "blocks+lowrank", 0, lambda: None, blocks).run()
    assert isinstance(made, Chain)
    kept, fitted = made.parts
    assert isinstance(kept, Blocks) and kept.digest == blocks.digest
    alone, _ = Work(made_models(), damaged(), [], "lowrank", 0, lambda: None).run()
    assert torch.equal(fitted.tensors()["down_DR"], alone.tensors()["down_DR"])
