"""The verify process' own part, without engines."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from app.deployments.store import DeploymentStore
from app.settings import Settings
from tests.unit.workers.calibration.online.making import deployment
from workers import verify
from workers.calibration.verified.selftest import SelfTest
from workers.verify import Verifying

FAILED = SelfTest(False, "it does not fit", 1e-5, 0.5, 10, 10, 2000, 0.9, 0)


async def test_each_start_draws_anew_and_keeps_by_which_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def models(*_: Any, **__: Any) -> SimpleNamespace:
        return SimpleNamespace(verifier=None, tokenizer_folder=tmp_path, stops=frozenset(), length=64)

    def run(*_: Any, seed: int = 0, **__: Any) -> SelfTest:
        return replace(FAILED, seed=seed)

    monkeypatch.setattr(verify, "VerifiedModels", models)
    monkeypatch.setattr(verify.selftest, "run", run)
    monkeypatch.setattr(verify, "load_tokenizer", lambda folder: None)
    monkeypatch.setattr(verify, "encode", lambda tokenizer, text: np.arange(8))
    seeds = []
    for _ in range(2):
        verifying = Verifying(Settings(home=tmp_path), cast(DeploymentStore, None), deployment())
        assert await verifying._prepared() is None
        verifying._compute.stop()
        kept = json.loads((tmp_path / "deployments" / "dep_1" / "selftest.json").read_text())
        assert (kept["passed"], kept["p_token"]) == (False, 1e-5)
        seeds.append(kept["seed"])
    assert seeds[0] != seeds[1], "a start that luck refused would be refused for ever"
