from pathlib import Path

import pytest
import torch

from app.contracts.profile import (
    Cell,
    DocumentSet,
    FitRecord,
    Profile,
    ProfileModel,
    ProfileRecord,
    TableRow,
    TestRecord,
)
from app.contracts.report import Mean
from app.settings import Settings
from workers.calibration.online.threshold import expected
from workers.calibration.profiles import ProfileStore
from workers.calibrators.token_bias import TokenBias

WEIGHTS = ("ref", "cand")


def put(
    store: ProfileStore, seed: int, *, kl_high: float | None, parent: str | None = None, candidate: str = "cand"
) -> Profile:
    mean = Mean(mean=0.3, ci=(0.2, 0.4))
    cell = Cell(tokens=10, documents=2, raw=mean, calibrated=mean, saved=mean, saved_share=0.1)
    row = TableRow(
        calibrator="token_bias",
        chosen=True,
        own=cell,
        domains={},
        choose_kl=0.1,
        microseconds_per_token=1.0,
        bytes=8,
    )
    test = None
    if kl_high is not None:
        test = TestRecord(
            frozen="x",
            opened_at=0.0,
            tolerance=0.005,
            passed=True,
            table=(row,),
            kl_high=kl_high,
            raw_kl_high=2 * kl_high,
        )
    fit = FitRecord(
        origin="online" if test is None else "job",
        reference=ProfileModel(model="m", weights_fingerprint="ref"),
        candidate=ProfileModel(model="m", weights_fingerprint=candidate),
        head="h",
        hidden_size=4,
        vocabulary=9,
        tokenizer_fingerprint="t",
        engine="e",
        dtype="bfloat16",
        window=512,
        seed=seed,
        sets=(DocumentSet(name="fit", documents=1, tokens=1, domains={"text": 1}, fingerprint="f"),),
        parent=parent,
    )
    bias = TokenBias(torch.tensor([3]), torch.tensor([0.5]), 9)
    return store.put(bias, ProfileRecord(fit=fit, test=test))


@pytest.fixture
def store(tmp_path: Path) -> ProfileStore:
    return ProfileStore(Settings(home=tmp_path))


def test_a_tested_version_gives_half_again_its_upper_limit(store: ProfileStore) -> None:
    found = expected(store, put(store, 0, kl_high=0.2).version, weights=WEIGHTS)
    assert found.threshold == pytest.approx(0.3)
    assert found.raw_mean == 0.3


def test_a_refit_is_held_to_the_test_that_it_descends_from(store: ProfileStore) -> None:
    first = put(store, 0, kl_high=0.2)
    second = put(store, 1, kl_high=None, parent=first.version)
    third = put(store, 2, kl_high=None, parent=second.version)
    assert expected(store, third.version, weights=WEIGHTS).threshold == pytest.approx(0.3)


def test_identity_is_held_to_what_the_raw_model_showed_in_a_test_of_the_same_weights(store: ProfileStore) -> None:
    assert expected(store, "identity", weights=WEIGHTS).threshold is None
    put(store, 0, kl_high=0.2, candidate="other")
    assert expected(store, "identity", weights=WEIGHTS).threshold is None
    put(store, 1, kl_high=0.1)
    assert expected(store, "identity", weights=WEIGHTS).threshold == pytest.approx(0.3)


def test_nothing_is_known_of_what_was_never_tested_or_is_gone(store: ProfileStore) -> None:
    assert expected(store, put(store, 0, kl_high=None, parent="identity").version, weights=WEIGHTS).threshold is None
    orphan = put(store, 1, kl_high=None, parent="cal-" + "0" * 16)
    assert expected(store, orphan.version, weights=WEIGHTS).threshold is None
    assert expected(store, "cal-" + "f" * 16, weights=WEIGHTS).threshold is None
