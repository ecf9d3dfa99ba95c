"""Which stored profile a new deployment may serve without fitting one of its own."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from app.contracts.profile import TestRecord as Proof
from app.contracts.request import CandidateModel, ReferenceModel
from app.deployments.fit import proven
from app.models.checkpoint import fingerprint
from app.settings import Settings
from tests.support.calibration_reports import calibrate_report
from tests.support.profiles import Temperature, record
from workers.calibration.profiles import ProfileStore

MODEL, REFERENCE = CandidateModel(model="tiny"), ReferenceModel(model="tiny")


@pytest.fixture
def model(tmp_path, tiny):
    return Path(shutil.copytree(tiny("llama"), tmp_path / "tiny"))


@pytest.fixture
def settings(tmp_path, model):
    (tmp_path / "models.toml").write_text(f"[models.tiny]\npath = {json.dumps(str(model))}\n")
    return Settings(home=tmp_path)


def stored(settings, weights, *, passed=True, tolerance=0.005, deployment="bot"):
    model: dict[str, Any] = {"model": "tiny", "weights_fingerprint": weights}
    told = calibrate_report(passed=passed)["test"] | {"tolerance": tolerance}
    made = record(reference=model, candidate=model, test=Proof.model_validate(told), deployment=deployment)
    return ProfileStore(settings).put(Temperature(1.5), made).version


def test_a_proven_profile_of_the_same_weights_is_found(settings, model):
    version = stored(settings, fingerprint(model))
    found = proven(settings, MODEL, REFERENCE)
    assert found is not None
    assert found.version == version


def test_one_of_a_job_that_any_key_may_submit_is_not_and_hides_none(settings, model):
    stored(settings, fingerprint(model), deployment=None)
    assert proven(settings, MODEL, REFERENCE) is None
    version = stored(settings, fingerprint(model))
    stored(settings, fingerprint(model), deployment=None)
    found = proven(settings, MODEL, REFERENCE)
    assert found is not None
    assert found.version == version


def test_one_that_was_refused_is_not(settings, model):
    stored(settings, fingerprint(model), passed=False)
    assert proven(settings, MODEL, REFERENCE) is None


def test_one_that_passed_a_laxer_test_is_not(settings, model):
    stored(settings, fingerprint(model), tolerance=0.1)
    assert proven(settings, MODEL, REFERENCE) is None


def test_one_of_weights_that_lay_under_the_same_name_before_is_not(settings, model):
    stored(settings, "a" * 64)
    later = time.time() + 60
    os.utime(model / "config.json", (later, later))
    assert proven(settings, MODEL, REFERENCE) is None


def test_weights_that_were_only_copied_anew_are_the_same(settings, model):
    version = stored(settings, fingerprint(model))
    later = time.time() + 60
    os.utime(model / "config.json", (later, later))
    found = proven(settings, MODEL, REFERENCE)
    assert found is not None
    assert found.version == version
