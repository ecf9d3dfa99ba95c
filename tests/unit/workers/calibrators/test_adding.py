"""A calibrator needs its class, its fit and a line for each: here one that only tests know."""

from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch

from app.kinds.calibrate.calibrators import FITTED, Fitted, named
from tests.support.calibration import make_data
from tests.support.position_calibrator import PositionTemperature, feature
from workers.calibration.fitting.fit import fit
from workers.calibrators import storage
from workers.calibrators.kinds import KINDS, Chain
from workers.calibrators.protocol import RowContext


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Fitted("temperature by position", "tests.support.position_calibrator:fit_position")
    monkeypatch.setitem(FITTED, "position", line)
    monkeypatch.setitem(KINDS, "position", PositionTemperature)  # type: ignore[misc]


def test_a_known_slope_is_found_and_comes_back_from_disk(tmp_path: Path) -> None:
    data, stop = (
        make_data(lambda h: h / (0.2 * torch.arange(2.0, len(h) + 2).log().double()).exp()[:, None], seed=seed)
        for seed in (1, 2)
    )
    made, record = fit("position", data, stop, device="cpu")
    assert isinstance(made, PositionTemperature)
    assert made.slope == pytest.approx(0.2, rel=1e-2)
    assert record.stop_kl < 1e-3 * record.raw_kl
    storage.save(made, tmp_path / "profile")
    assert storage.load(tmp_path / "profile").describe() == made.describe()


def test_whatever_can_be_fitted_can_be_loaded_under_the_same_name() -> None:
    for name, line in FITTED.items():
        assert name == KINDS[name].KIND
        assert callable(resolve_name(line.fit))


def test_it_composes_and_has_words() -> None:
    context = RowContext(torch.tensor([0, 7]), torch.tensor([1, 2]))
    logits = torch.tensor([[1.0, -2.0], [3.0, 0.5]])
    twice = Chain([PositionTemperature(0.1), PositionTemperature(0.2)]).apply_logits(logits, context)
    torch.testing.assert_close(twice, logits * (0.3 * feature(context)).exp())
    assert named("lowrank+position") == "low-rank map, then temperature by position"
