"""What a correction changes beside KL, against the plain numbers."""

import pytest

from tests.support.profiles import Temperature
from tests.unit.workers.calibration.test_measure import head, rows
from workers.calibration.effects import effects_of
from workers.calibration.measure import Logits, measured


def test_effects_are_the_plain_means_of_every_row() -> None:
    made, logits = rows(200, noise=1.0), Logits(head(0), head(0), device="cpu")
    _, values = measured(made, logits, {"hot": Temperature(1.4)}, valued=["", "hot"])
    raw, calibrated = values[""], values["hot"]
    found = effects_of(raw, calibrated, made, seed=0)
    assert found.top1_agreement.change.mean == pytest.approx(0)  # a temperature moves no token past another
    assert found.entropy.change.mean == pytest.approx((calibrated.entropy_candidate - raw.entropy_candidate).mean())
    assert found.entropy.reference.mean == pytest.approx(raw.entropy_reference.mean())
    assert found.loss.raw.mean == pytest.approx(-raw.logp_candidate.mean())
