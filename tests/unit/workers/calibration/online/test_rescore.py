"""What is kept of a request that was scored again."""

import numpy as np
import torch

from app.contracts.deployment import ShadowSample
from workers.calibration.online.rescore import RAW, SERVED, _scored
from workers.calibration.online.scoring import Rows, Scores


def scores(*kl: float) -> Scores:
    kl_T = np.array(kl)
    return Scores(kl_T, np.ones(len(kl), dtype=np.bool_), np.isfinite(kl_T))


def test_a_row_whose_corrected_stream_is_not_finite_teaches_no_refit() -> None:
    states_TD = torch.arange(8.0).reshape(4, 2)
    served_TD = states_TD.clone()
    served_TD[2] = torch.nan
    rows = Rows.of_request([1], [2, 3, 4], states_TD, served_TD)
    sample = ShadowSample(id="one", prompt=(1,), output=(2, 3, 4), version="cal-00000000000000aa", at=0.0)
    found = _scored(sample, rows, {RAW: scores(0.1, 0.1, 0.2), SERVED: scores(0.1, 0.3, np.nan)}, None, None)
    assert found is not None and found.request is None and found.served == np.inf
    assert torch.equal(found.rows.candidate_TD, states_TD[:2])
