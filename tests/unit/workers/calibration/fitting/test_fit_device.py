"""Fits beside a device: all is computed there, and the corrections are those of the host, on the host.

A fit reads numbers to decide how it goes on, so it runs on the second device. What it computes of each chunk does not,
and runs on meta, too, with calibrators that read none of their own numbers when they are made."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from app.kinds.calibrate.request import CALIBRATORS
from tests.support.calibration import D, make_data, make_head
from tests.support.published_models import info_of
from tests.support.second_device import second_device
from tests.support.stopping import until_done
from workers.calibration.fits import Fits, fit_bytes, refine_bytes, walk_bytes
from workers.calibration.fitting.data import FitData
from workers.calibration.fitting.fit import fit
from workers.calibration.fitting.objective import Objective
from workers.calibration.fitting.spec import Spec
from workers.calibration.reductions import Reductions
from workers.calibration.rows import Rows
from workers.calibrators.base import Base
from workers.calibrators.blocks import BlockCorrection, Blocks
from workers.distributions.token_values import Positions

HEADS = {
    "one": (make_head(dtype=torch.bfloat16),) * 2,
    "capped": (make_head(cap=3.0, scale=2.0), make_head(seed=4, cap=2.0, scale=1.5)),
}
CORRECTION = BlockCorrection(torch.zeros(0, D), torch.zeros(D, 0), torch.ones(D), torch.tensor(3.0))
BLOCKS = Blocks({0: CORRECTION}, layers=2, hidden_size=D)


def damaged(rows: int, seed: int, heads: str = "one") -> FitData:
    reference, candidate = HEADS[heads]
    made = make_data(lambda h: 1.4 * h + 0.3, rows=rows, seed=seed, reference_head=reference, candidate_head=candidate)
    dtype = reference.weight_VD.dtype
    return replace(made, reference_TD=made.reference_TD.to(dtype), candidate_TD=made.candidate_TD.to(dtype))


def assert_equal(there: Base, here: Base) -> None:
    assert dict(there.describe()) == dict(here.describe())
    assert there.tensors().keys() == here.tensors().keys()
    for name, tensor in there.tensors().items():
        assert tensor.device.type == "cpu", name
        assert torch.equal(tensor, here.tensors()[name]), name


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("name", [*CALIBRATORS, "blocks+token_bias+confidence"])
def test_a_fit_on_another_device_is_that_of_the_host(name: str, heads: str) -> None:
    data, stop = damaged(300, 1, heads), damaged(100, 2, heads)
    spec, known = Spec.parse(name, epochs=2, steps=3), {("blocks",): BLOCKS}
    here, course = fit(spec, data, stop, device="cpu", known=known)
    with second_device() as device:
        there, again = fit(spec, data, stop, device=device, known=known)
    assert again == course
    assert course.stop_kl < course.raw_kl
    assert_equal(there, here)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("name", ["temperature", "lowrank"])
def test_divergence_and_gradient_of_a_chunk_run_where_no_number_can_be_read(name: str, heads: str) -> None:
    data = damaged(64, 1, heads)
    made, _ = fit(Spec.parse(name, epochs=1, steps=2), data, damaged(32, 2, heads), device="cpu")
    meta = torch.device("meta")
    objective, there = Objective(*HEADS[heads], device=meta), data.to(meta)
    found = objective.divergence(made.to(meta), there)
    slopes_TD = objective.gradient(there.reference_TD, there.candidate_TD)
    assert [tuple(one.shape) for one in (found, slopes_TD)] == [(64,), (64, D)]
    assert {one.device for one in (found, slopes_TD)} == {meta}


def test_what_a_stopped_fit_has_kept_goes_back_to_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.calibration.fitting.objective._MOST_ROWS", 40)
    data, stop = damaged(300, 1), damaged(100, 2)
    spec = Spec.parse("lowrank+token_bias+confidence", epochs=2, steps=2)
    here, course = fit(spec, data, stop, device="cpu")
    with second_device() as device:
        (there, again), attempts = until_done(
            lambda check: fit(spec, data, stop, device=device, check_cancelled=check, reductions=Reductions(tmp_path)),
            lambda attempt: 20 + attempt,
        )
    assert attempts > 2
    assert again == course
    assert_equal(there, here)


def rows_of(data: FitData) -> Rows:
    index = np.arange(len(data))
    return Rows(
        reference_TD=data.reference_TD,
        candidate_TD=data.candidate_TD,
        next_T=data.context.token_T,
        context=data.context,
        positions=Positions(data.document_T.numpy(), data.document_T.numpy(), index, index, index),
        domains=("prose",) * 12,
        corrected_TD=(data.reference_TD + data.candidate_TD) / 2,
    )


def test_the_fits_of_a_job_are_those_of_the_host(tmp_path: Path) -> None:
    """With corrections after each block, which are judged there too."""
    sides: Any = SimpleNamespace(
        **{
            name: SimpleNamespace(head=head)
            for name, head in zip(("reference", "candidate"), HEADS["one"], strict=True)
        }
    )
    context: Any = SimpleNamespace(progress=lambda *_: None, log=lambda _: None, check_cancelled=lambda: None)
    rows, stop = rows_of(damaged(300, 1)), rows_of(damaged(100, 2))
    names = ("confidence", "blocks", "blocks+confidence", "lowrank+confidence")

    def fitted(folder: str, device: Any) -> dict[str, Base]:
        fits = Fits(sides, rows, stop, blocks=BLOCKS, folder=tmp_path / folder, device=device, seed=0, context=context)
        return {name: found.calibrator for name, found in fits.all(names).items()}

    here = fitted("here", "cpu")
    with second_device() as device:
        there = fitted("there", device)
    assert here["blocks"] is BLOCKS
    for name in names:
        assert_equal(there[name], here[name])


def test_an_8b_needs_as_much_as_the_documentation_says() -> None:
    """8·V·D + 80·D² + 1 GiB."""
    model: Any = SimpleNamespace(vocabulary=128_256, hidden_size=4096)
    assert fit_bytes(model, model, "cuda") == 8 * 128_256 * 4096 + 80 * 4096**2 + 2**30
    assert fit_bytes(model, model, "cpu") == 0


def test_the_walk_of_an_8b_needs_a_block_of_each_model_beside_its_embedding(tiny):
    """A block of Llama-3.1-8B: 2·4096² + 2·4096·1024 of attention, 3·4096·14336 of the MLP, two norms."""
    info = info_of("Llama-3.1-8B", tiny)
    block = 2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096
    assert walk_bytes(info, 2, "cuda") == 2 * 2 * (128_256 * 4096 + block) + 96 * 4096**2 + 2**30
    assert walk_bytes(info, 4, "cuda") - walk_bytes(info, 2, "cuda") == 4 * (128_256 * 4096 + block)
    assert walk_bytes(info, 2, "cpu") == 0


def test_refining_an_8b_needs_the_model_two_heads_and_four_times_what_is_trained(tiny):
    info = info_of("Llama-3.1-8B", tiny)
    trained = 4 * 4 * 32 * 4096 * (2 * 64 + 1)
    kept = refine_bytes(info, info, 2, 1024, "cuda") - 2 * info.parameters - 2 * 2 * 128_256 * 4096 - trained
    assert 2 * 32 * 1024 * 4096 < kept < 2**35  # at least what leaves each block, of 1,024 tokens
    more = refine_bytes(info, info, 2, 2048, "cuda") - refine_bytes(info, info, 2, 1024, "cuda")
    assert more == kept, "of a window that is twice as long"
    assert refine_bytes(info, info, 2, 1024, "cpu") == 0
