"""Fits recover a damage that is known, agree with scipy on the same objective, and can be repeated and cancelled."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize

from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.calibrate.calibrators import FITTED, Fitted, named
from app.kinds.calibrate.request import CALIBRATORS
from tests.support.calibration import D, V, make_data, make_head
from tests.support.stopping import until_done
from workers.calibration.fitting.data import FitData
from workers.calibration.fitting.fit import fit
from workers.calibration.fitting.logits import Fixed
from workers.calibration.fitting.objective import Objective
from workers.calibration.fitting.spec import Settings, Spec
from workers.calibration.reductions import Reductions
from workers.calibrators.confidence import ConfidenceTemperature
from workers.calibrators.identity import Identity
from workers.calibrators.lowrank import LowRank
from workers.calibrators.temperature import Temperature
from workers.calibrators.token_bias import TokenBias
from workers.distributions.head import Head


def lowrank_damage(hidden_TD: torch.Tensor) -> torch.Tensor:
    """What an affine map of rank 3 undoes exactly."""
    generator = torch.Generator().manual_seed(5)
    down = 0.3 * torch.randn(D, 3, generator=generator, dtype=torch.float64)
    up = 0.3 * torch.randn(3, D, generator=generator, dtype=torch.float64)
    return torch.as_tensor(hidden_TD @ torch.linalg.inv(torch.eye(D, dtype=torch.float64) + down @ up) - 0.1)


def noise(hidden_TD: torch.Tensor) -> torch.Tensor:
    """What nothing undoes."""
    return hidden_TD + torch.randn(hidden_TD.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)


def biased_pair(bias: dict[int, float]) -> tuple[FitData, FitData]:
    """Fit and stop rows of a candidate whose logits lack a bias."""
    bias_V = torch.zeros(V, dtype=torch.float64)
    for token, value in bias.items():
        bias_V[token] = value
    base = make_head()
    reference = Head(base.weight_VD * 0.3, bias_V, 1.0, None, "biased")
    candidate = Head(base.weight_VD * 0.3, None, 1.0, None, "plain")
    made = [
        make_data(rows=rows, documents=40, seed=seed, reference_head=reference, candidate_head=candidate)
        for rows, seed in ((4000, 1), (800, 2))
    ]
    return made[0], made[1]


def test_the_temperature_is_that_of_scipy() -> None:
    data, stop = (make_data(noise, seed=seed) for seed in (1, 2))
    made, _ = fit(Spec.parse("temperature", steps=20), data, stop, device="cpu")
    assert isinstance(made, Temperature)
    objective = Objective(data.reference_head, data.candidate_head, device="cpu")
    best = optimize.minimize_scalar(
        lambda t: objective.mean(Temperature(float(t)), data),
        bounds=(0.2, 8),
        method="bounded",
        options={"xatol": 1e-7},
    )
    assert made.temperature == pytest.approx(best.x, rel=2e-3)


def test_the_confidence_table_is_that_of_scipy() -> None:
    data, stop = (make_data(noise, rows=300, seed=seed) for seed in (1, 2))
    made, _ = fit(Spec.parse("confidence", knots=3, steps=30), data, stop, device="cpu")
    assert isinstance(made, ConfidenceTemperature)
    objective = Objective(data.reference_head, data.candidate_head, device="cpu")

    def value(theta: np.ndarray) -> float:  # type: ignore[type-arg]
        return objective.mean(ConfidenceTemperature(made.knots_K, torch.from_numpy(theta)), data)

    best = optimize.minimize(value, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-12})
    assert value(made.log_scale_K.double().numpy()) <= best.fun + 1e-5
    assert value(np.zeros(3)) > best.fun + 0.01


def test_a_known_bias_is_found_shrunk_and_nothing_else() -> None:
    data, stop = biased_pair({3: 2.0, 20: -1.5})
    made, record = fit(Spec.parse("token_bias", steps=40, evidence=3.0), data, stop, device="cpu")
    assert isinstance(made, TokenBias)
    found = dict(zip(made.ids_I.tolist(), made.bias_I.tolist(), strict=True))
    # A bias of all tokens changes nothing, so that it is found up to one constant: the others', which are 0.
    assert found[3] == pytest.approx(2.0, abs=0.25)
    assert abs(found[3]) < 2.0
    assert found[20] == pytest.approx(-1.5, abs=0.35)
    assert max((abs(value) for token, value in found.items() if token not in {3, 20}), default=0) < 0.15
    assert record.stop_kl < 0.1 * record.raw_kl


def test_without_a_bias_there_is_none() -> None:
    data, stop = biased_pair({})
    made, record = fit("token_bias", data, stop, device="cpu")
    assert isinstance(made, Identity)
    assert record.stop_kl == record.raw_kl
    assert record.left_out == ("token_bias",)


def test_a_known_map_is_found_and_its_rank_is_kept() -> None:
    data, stop = (make_data(lowrank_damage, seed=seed) for seed in (1, 2))
    made, record = fit(Spec.parse("lowrank", rank=6, epochs=60, rate=0.5), data, stop, device="cpu")
    assert isinstance(made, LowRank)
    assert made.rank == 6
    assert record.stop_kl < 0.01 * record.raw_kl


@pytest.mark.parametrize("name", CALIBRATORS)
def test_never_worse_than_raw_on_the_stop_set_and_the_record_says_so(name: str) -> None:
    data, stop = make_data(noise, rows=200, seed=1), make_data(noise, rows=200, seed=2)
    made, record = fit(name, data, stop, device="cpu")
    found = Objective(data.reference_head, data.candidate_head, device="cpu").mean(made, stop)
    assert found == pytest.approx(record.stop_kl, rel=1e-9)
    assert record.stop_kl <= record.raw_kl
    assert (record.fit_rows, record.stop_rows) == (200, 200)
    assert record.steps


def test_a_composition_is_at_least_as_good_as_its_beginning_and_can_go_on_from_it() -> None:
    data, stop = (make_data(lambda h: 1.5 * lowrank_damage(h), seed=seed) for seed in (1, 2))
    whole, record = fit("confidence+lowrank", data, stop, device="cpu")
    beginning, first = fit("lowrank", data, stop, device="cpu")
    assert record.name == "lowrank+confidence"
    assert record.stop_kl <= first.stop_kl
    known = {("lowrank",): beginning, ("temperature",): Identity()}
    continued, short = fit("lowrank+confidence", data, stop, device="cpu", known=known)
    assert short.stop_kl == record.stop_kl
    assert len(short.steps) < len(record.steps)
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, continued.tensors()[name])


def test_fitting_stops_when_the_stop_set_gains_no_more() -> None:
    """The stop rows are undamaged: whatever the fit rows say, they only lose by it."""
    data, stop = make_data(lowrank_damage, seed=1), make_data(noise, seed=2)
    harmed = FitData(
        stop.reference_TD, stop.reference_TD, stop.context, stop.document_T, stop.reference_head, stop.candidate_head
    )
    made, record = fit(Spec.parse("lowrank", epochs=50, rate=1.0), data, harmed, device="cpu")
    assert isinstance(made, Identity)
    assert len(record.steps) < 10
    assert record.stopped_early == ("lowrank",)


@pytest.mark.parametrize("name", CALIBRATORS)
def test_a_fit_that_is_stopped_again_and_again_ends_in_the_same_bits_and_does_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Every attempt is stopped after a few chunks; products with a head are counted, over all attempts."""
    products = 0
    data, stop = make_data(lowrank_damage, rows=300, seed=1), make_data(lowrank_damage, rows=100, seed=2)
    spec = Spec.parse(name, epochs=3, steps=3)

    def counted(way: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def product(*arguments: Any) -> torch.Tensor:
            nonlocal products
            products += 1
            return way(*arguments)

        return product

    for way in ("divergence", "gradient", "candidate_logits"):
        monkeypatch.setattr(Objective, way, counted(getattr(Objective, way)))
    monkeypatch.setattr("workers.calibration.fitting.objective._MOST_ROWS", 40)
    whole, record = fit(spec, data, stop, device="cpu")
    once, products = products, 0
    (made, again), attempts = until_done(
        lambda check: fit(spec, data, stop, device="cpu", check_cancelled=check, reductions=Reductions(tmp_path)),
        lambda attempt: 16 + attempt,  # chunks that are done already are passed over, each after a look
    )
    assert attempts > 2
    assert products == once
    assert again == record
    assert dict(made.describe()) == dict(whole.describe())
    assert made.tensors().keys() == whole.tensors().keys()
    assert all(torch.equal(tensor, made.tensors()[key]) for key, tensor in whole.tensors().items())


def test_progress_rises_to_its_end_for_each_kind() -> None:
    data, stop = make_data(lowrank_damage, rows=300, seed=1), make_data(lowrank_damage, rows=100, seed=2)
    told: list[tuple[str, int, int]] = []
    fit("lowrank+token_bias+confidence", data, stop, device="cpu", progress=lambda *now: told.append(now))
    for kind in ("lowrank", "token_bias", "confidence"):
        own = [(done, total) for phase, done, total in told if phase == kind]
        assert [done for done, _ in own] == sorted(done for done, _ in own)
        assert own[-1][0] == own[-1][1]


def fit_half(fixed: Fixed, data: FitData, settings: Settings, **_: Any) -> Temperature:
    del fixed, data, settings
    return Temperature(2.0)


def test_a_calibrator_is_fitted_by_the_function_of_its_own_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FITTED, "half", Fitted("half as sharp", f"{__name__}:fit_half"))
    data, stop = (make_data(lambda h: 2 * h, seed=seed) for seed in (1, 2))
    made, record = fit("half", data, stop, device="cpu")
    assert isinstance(made, Temperature)
    assert (made.temperature, record.name) == (2.0, "half")
    assert named("half+temperature") == "half as sharp, then temperature"


@pytest.mark.parametrize("name", ["", "magic", "lowrank+magic"])
def test_unknown_kinds(name: str) -> None:
    data = make_data(lowrank_damage, rows=40)
    with pytest.raises(ValueError, match="cannot be fitted"):
        fit(name, data, data, device="cpu")


def test_a_broken_model_is_refused() -> None:
    data = make_data(lambda hidden_TD: hidden_TD * torch.nan, rows=40)
    with pytest.raises(HemostatError) as caught:
        fit("temperature", data, data, device="cpu")
    assert caught.value.code == ErrorCode.NONFINITE_LOGITS


def test_models_of_different_widths() -> None:
    narrow = torch.eye(D, D - 4, dtype=torch.float64)
    head = make_head()
    small = Head(head.weight_VD @ narrow, None, 1.0, None, "narrow")
    data, stop = (make_data(lambda h: h @ narrow, seed=seed, candidate_head=small) for seed in (1, 2))
    made, record = fit("lowrank", data, stop, device="cpu")
    assert made.hidden_size == D - 4
    assert record.stop_kl < record.raw_kl
