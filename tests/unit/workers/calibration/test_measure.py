"""Against scipy in float64, and against the engine-side divergence that compare jobs use."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax

from tests.support.profiles import Chain, ConfidenceTemperature, Temperature
from tests.support.second_device import second_device
from tests.support.stopping import StoppedError, stop_after, until_done
from workers.calibration.measure import (
    Logits,
    cost_microseconds,
    mean_kl_columns,
    measured,
    served,
    values_of,
)
from workers.calibration.reductions import Reductions
from workers.calibration.rows import Rows
from workers.calibrators.base import Base
from workers.calibrators.blocks import BlockCorrection, Blocks
from workers.calibrators.identity import Identity
from workers.calibrators.lowrank import LowRank
from workers.calibrators.protocol import RowContext
from workers.calibrators.token_bias import TokenBias
from workers.distributions.divergence import Divergence
from workers.distributions.head import Head
from workers.distributions.token_values import FIELDS, Positions

WIDTH, VOCABULARY = 16, 512


def head(seed: int = 0) -> Head:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator).to(torch.bfloat16)
    return Head(weight, None, 1.0, None, "f" * 64)


def rows(count: int = 50, noise: float = 0.3, seed: int = 0) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    reference = torch.randn(count, WIDTH, generator=generator)
    candidate = reference + noise * torch.randn(count, WIDTH, generator=generator)
    index = np.arange(count)
    return Rows(
        reference_TD=reference.to(torch.bfloat16),
        candidate_TD=candidate.to(torch.bfloat16),
        next_T=torch.randint(0, VOCABULARY, (count,), generator=generator),
        context=RowContext(torch.arange(count) + 1, torch.randint(0, VOCABULARY, (count,), generator=generator)),
        positions=Positions(index % 5, index % 5, index, index + 1, index),
        domains=("prose", "code", "prose", "code", "prose"),
    )


LOWRANK = LowRank(torch.ones(WIDTH, 2) / 8, torch.ones(2, WIDTH) / 8, torch.linspace(-1, 1, WIDTH))
BIAS = TokenBias(torch.tensor([3, 100]), torch.tensor([1.5, -2.0]), VOCABULARY)
CONFIDENCE = ConfidenceTemperature(torch.tensor([-4.0, -1.0]), torch.tensor([0.3, -0.2]))
BLOCKS = Blocks(
    {0: BlockCorrection(torch.zeros(0, WIDTH), torch.zeros(WIDTH, 0), torch.ones(WIDTH), torch.tensor(3.0))},
    layers=2,
    hidden_size=WIDTH,
)
CALIBRATORS: dict[str, Base] = {
    "identity": Identity(),
    "temperature": Temperature(1.7),
    "confidence": CONFIDENCE,
    "token_bias": BIAS,
    "lowrank": LOWRANK,
    "joined": Chain([LOWRANK, BIAS, CONFIDENCE]),
    "blocks": BLOCKS,
    "blocks and more": Chain([BLOCKS, LOWRANK, CONFIDENCE]),
}


def logits_of(which: Head, hidden: torch.Tensor) -> np.ndarray:
    return hidden.double().numpy() @ which.weight_VD.double().numpy().T


@pytest.mark.parametrize("chunk", [8, 10_000])
def test_kl_of_raw_and_calibrated_is_that_of_scipy(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr("workers.calibration.measure.CHUNK_LOGITS", chunk * VOCABULARY)
    made, ref, cand = rows(), head(0), head(1)
    columns = mean_kl_columns(made, Logits(ref, cand, device="cpu"), {"hot": Temperature(1.7)})
    p = softmax(logits_of(ref, made.reference_TD), axis=1)
    raw = logits_of(cand, made.candidate_TD)
    assert columns[""] == pytest.approx(rel_entr(p, softmax(raw, axis=1)).sum(1), rel=1e-4, abs=1e-6)
    assert columns["hot"] == pytest.approx(rel_entr(p, softmax(raw / 1.7, axis=1)).sum(1), rel=1e-4, abs=1e-6)


def test_a_hidden_correction_goes_through_the_head() -> None:
    made, ref = rows(), head()
    shift = torch.linspace(-1, 1, WIDTH)
    moved = LowRank(torch.zeros(WIDTH, 1), torch.zeros(1, WIDTH), shift)
    columns = mean_kl_columns(made, Logits(ref, ref, device="cpu"), {"moved": moved})
    corrected = (made.candidate_TD.float() + shift).to(torch.bfloat16)
    p = softmax(logits_of(ref, made.reference_TD), axis=1)
    expected = rel_entr(p, softmax(logits_of(ref, corrected), axis=1)).sum(1)
    assert columns["moved"] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_what_was_measured_before_a_stop_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.calibration.measure.CHUNK_LOGITS", 8 * VOCABULARY)
    made, logits, hot = rows(), Logits(head(0), head(1), device="cpu"), Temperature(1.7)
    asked = 0
    real = Logits.of_reference

    def counted(self: Logits, chunk: Rows) -> torch.Tensor:
        nonlocal asked
        asked += 1
        return real(self, chunk)

    monkeypatch.setattr(Logits, "of_reference", counted)

    def reduced(reductions: Reductions, check: Callable[[], None]) -> list[np.ndarray]:
        kl, values = measured(made, logits, {"hot": hot}, valued=["hot"], check_cancelled=check, reductions=reductions)
        return [*kl.values(), *(getattr(values["hot"], name) for name in FIELDS)]

    whole = reduced(Reductions(), lambda: None)
    once, asked = asked, 0
    found, attempts = until_done(lambda check: reduced(Reductions(tmp_path), check), lambda _: 10)
    assert attempts > 1
    assert asked <= once + attempts, "but for the chunk at hand"
    for one, other in zip(whole, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_token_values_are_those_that_compare_jobs_measure() -> None:
    """Another implementation: fused, in difference form."""
    made, ref, cand = rows(200), head(0), head(1)
    ours = measured(made, Logits(ref, cand, device="cpu"), {}, valued=[""])[1][""]
    with torch.compiler.set_stance("force_eager"):
        divergence = Divergence(ref, cand, precision="float32", device="cpu")
        theirs = divergence(made.reference_TD, made.candidate_TD, made.next_T)
    for name in FIELDS:
        mine, other = getattr(ours, name), getattr(theirs, name)
        if mine.dtype.kind == "f":
            assert mine == pytest.approx(other, rel=2e-3, abs=2e-5), name
        else:
            assert (mine == other).all(), name


def test_a_row_that_is_not_finite_is_marked_and_touches_no_other() -> None:
    good, model = torch.randn(4, 20), torch.randn(4, 20)
    spoiled = model.clone()
    spoiled[2, 3] = torch.nan
    following = torch.tensor([1, 2, 3, 4])
    clean, found = values_of(good, model, following), values_of(good, spoiled, following)
    assert found.finite.tolist() == [True, True, False, True]
    keep = np.asarray([0, 1, 3])
    assert np.isnan(found.kl[2])
    assert (found.kl[keep] == clean.kl[keep]).all()


def test_loss_and_entropy_of_a_calibrated_model_are_its_own() -> None:
    made, ref, cand = rows(), head(0), head(1)
    found = measured(made, Logits(ref, cand, device="cpu"), {"hot": Temperature(2.0)}, valued=["hot"])[1]["hot"]
    model = log_softmax(logits_of(cand, made.candidate_TD) / 2, axis=1)
    assert found.entropy_candidate == pytest.approx(-(np.exp(model) * model).sum(1), rel=1e-4, abs=1e-6)
    assert found.logp_candidate == pytest.approx(model[np.arange(50), made.next_T.numpy()], rel=1e-4)


def test_the_cost_of_a_correction_is_a_time_and_cancelling_it_is_heard() -> None:
    made, logits = rows(), Logits(head(), head(), device="cpu")
    assert 0 < cost_microseconds(Temperature(1.5), logits, made) < 1e6
    with pytest.raises(StoppedError):
        cost_microseconds(Temperature(1.5), logits, made, check_cancelled=stop_after())


def test_a_reference_that_is_not_finite_is_no_divergence_of_zero() -> None:
    made, broken = rows(6), rows(6)
    broken.reference_TD[2, 3] = float("nan")
    columns = mean_kl_columns(broken, Logits(head(0), head(1), device="cpu"), {"hot": Temperature(1.7)})
    sound = mean_kl_columns(made, Logits(head(0), head(1), device="cpu"), {"hot": Temperature(1.7)})
    for name, column in columns.items():
        assert np.flatnonzero(np.isnan(column)).tolist() == [2]
        assert np.delete(column, 2) == pytest.approx(np.delete(sound[name], 2))


def test_what_is_measured_on_another_device_is_what_the_host_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of correction and joined ones; the second time from what the first has kept."""
    monkeypatch.setattr("workers.calibration.measure.CHUNK_LOGITS", 8 * VOCABULARY)
    made = replace(rows(), corrected_TD=rows(seed=1).candidate_TD)

    def on(device: torch.device, folder: Path | None) -> list[np.ndarray]:
        logits, reductions = Logits(head(0), head(1), device=device), Reductions(folder)
        calibrators = served(CALIBRATORS, device, torch.bfloat16)
        columns, values = measured(made, logits, calibrators, valued=["joined"], reductions=reductions)
        assert cost_microseconds(calibrators["blocks and more"], logits, made) > 0
        return [*columns.values(), *(getattr(values["joined"], name) for name in FIELDS)]

    here = on(torch.device("cpu"), None)
    for _ in range(2):
        with second_device() as device:
            there = on(device, tmp_path)
        for one, other in zip(there, here, strict=True):
            np.testing.assert_array_equal(one, other)
