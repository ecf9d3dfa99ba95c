"""What a correction changes beside KL, against the plain numbers."""

import numpy as np
import pytest

from tests.support.profiles import Temperature
from tests.unit.workers.calibration.test_measure import head, rows
from workers.calibration.effects import effects_of, temperature_share
from workers.calibration.measure import Logits, mean_kl_columns, token_values
from workers.calibration.selection import Paired, paired

NOTHING = Paired(None, None, None, 0)


def test_the_share_of_one_temperature_is_taken_over_the_same_rows_as_the_whole() -> None:
    made, logits = rows(200, noise=1.0), Logits(head(0), head(0))
    columns = mean_kl_columns(made, logits, {"temperature": Temperature(1.2), "chosen": Temperature(1.4)})
    everywhere = np.ones(len(made), dtype=np.bool_)
    temperature, chosen = (
        paired(columns[""], columns[name], made.positions, everywhere, seed=0) for name in ("temperature", "chosen")
    )
    raw, calibrated = (token_values(made, logits, one) for one in (None, Temperature(1.4)))
    found = effects_of(raw, calibrated, made, temperature=temperature, chosen=chosen, sampled=(), seed=0)
    saved = [float((columns[""] - columns[name]).mean()) for name in ("temperature", "chosen")]
    assert min(saved) > 0
    assert found.temperature_share == pytest.approx(saved[0] / saved[1])
    assert found.top1_agreement.change.mean == pytest.approx(0)  # a temperature moves no token past another
    assert found.entropy.change.mean == pytest.approx((calibrated.entropy_candidate - raw.entropy_candidate).mean())
    assert found.entropy.reference.mean == pytest.approx(raw.entropy_reference.mean())
    assert found.loss.raw.mean == pytest.approx(-raw.logp_candidate.mean())


def test_where_nothing_is_saved_there_is_no_share() -> None:
    made = rows(40)
    raw = np.full(40, 1.0)
    worse, better = (paired(raw, raw + by, made.positions, np.ones(40, dtype=np.bool_), seed=0) for by in (0.1, -0.1))
    assert temperature_share(better, worse) is None
    assert temperature_share(None, better) is None
    assert temperature_share(NOTHING, better) is None
    assert temperature_share(better, NOTHING) is None
    assert temperature_share(worse, better) == pytest.approx(-1)
