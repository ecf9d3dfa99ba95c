"""Corrections are fitted and measured on the device as on the host, but for rounding."""

import numpy as np
import pytest
import torch

from app.kinds.calibrate.request import CALIBRATORS
from tests.support.calibration import make_data, make_head
from workers.calibration.fitting.data import FitData
from workers.calibration.fitting.fit import fit
from workers.calibration.measure import Logits, mean_kl_columns, served
from workers.calibration.rows import Rows
from workers.distributions.token_values import Positions

HEAD = make_head(dtype=torch.bfloat16)


def damaged(rows: int, seed: int) -> FitData:
    made = make_data(lambda h: 1.4 * h + 0.3, rows=rows, seed=seed, reference_head=HEAD)
    states = made.reference_TD.bfloat16(), made.candidate_TD.bfloat16()
    return FitData(*states, made.context, made.document_T, HEAD, HEAD)


@pytest.mark.parametrize("name", CALIBRATORS)
def test_a_fit_on_the_device_helps_as_much_as_on_the_host(device: str, name: str) -> None:
    data, stop = damaged(600, 1), damaged(200, 2)
    _, here = fit(name, data, stop, device="cpu")
    made, there = fit(name, data, stop, device=device)
    assert there.raw_kl == pytest.approx(here.raw_kl, rel=1e-2)
    assert there.stop_kl == pytest.approx(here.stop_kl, rel=5e-2)
    assert all(tensor.device.type == "cpu" for tensor in made.tensors().values())


def test_what_corrections_do_is_measured_on_the_device_as_on_the_host(device: str) -> None:
    data, stop = damaged(600, 1), damaged(200, 2)
    index, document = np.arange(200), stop.document_T.numpy()
    rows = Rows(
        reference_TD=stop.reference_TD,
        candidate_TD=stop.candidate_TD,
        next_T=stop.context.token_T,
        context=stop.context,
        positions=Positions(document, document, index, index, index),
        domains=("prose",) * 12,
    )
    fitted = {name: fit(name, data, stop, device="cpu")[0] for name in CALIBRATORS}
    here, there = (
        mean_kl_columns(rows, Logits(HEAD, HEAD, device=where), served(fitted, torch.device(where), torch.bfloat16))
        for where in ("cpu", device)
    )
    for name, column in here.items():
        assert there[name].mean() == pytest.approx(column.mean(), rel=1e-2), name
