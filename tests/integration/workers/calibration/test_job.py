"""A calibrate job from request to report, with a real engine on a tiny model."""

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.calibrate.report import CalibrateReport
from app.kinds.calibrate.request import CalibrateRequest
from app.settings import Settings
from workers.calibration import fits
from workers.calibration.job import calibrate
from workers.calibration.profiles import ProfileStore
from workers.engine.room import EngineRoom
from workers.process.handler import JobCancelled
from workers.process.yielding import KEPT

Json = dict[str, Any]
WORDS = ("the", "lazy", "dog", "jumps", "over", "quick", "brown", "foxes", "a", "model", "that", "loses", "what", "it")


def document(number: int, domain: str) -> Json:
    rng = np.random.default_rng(number)
    return {"id": f"{domain}-{number}", "domain": domain, "text": " ".join(rng.choice(WORDS, 60))}


DOCUMENTS = [document(number, "prose" if number % 2 else "code") for number in range(40)]


class Context:
    """One attempt; records what it was told, and can be told to stop in a phase."""

    def __init__(self, settings: Settings, folder: Path, *, stop_in: str = "") -> None:
        self.settings = settings
        self.job_id, self.attempt = "diag_test", 1
        self.scratch, self.output = folder / "partial", folder / "attempt-1"
        for path in (self.scratch, self.output):
            path.mkdir(parents=True, exist_ok=True)
        self.phases: list[str] = []
        self.logs: list[str] = []
        self.samples: dict[str, float] = {}
        self._stop_in = stop_in

    def progress(self, phase: str, done: int, total: int) -> None:
        assert done <= total or total == 0
        if not self.phases or self.phases[-1] != phase:
            self.phases.append(phase)

    def log(self, message: str) -> None:
        self.logs.append(message)

    def check_cancelled(self) -> None:
        if self._stop_in and self.phases and self.phases[-1] == self._stop_in:
            raise JobCancelled

    def observe(self, name: str, value: float, **_: str) -> None:
        self.samples[name] = value

    def observe_many(self, name: str, values: Any, **_: str) -> None:
        self.samples[name] = len(list(values))


@pytest.fixture(scope="module")
def settings(tiny: Callable[..., Path], home_of: Callable[..., Settings]) -> Settings:
    return home_of({"tiny": tiny("llama")})


def request(**changes: Any) -> CalibrateRequest:
    return CalibrateRequest.model_validate(
        {
            "kind": "calibrate",
            "reference": {"model": "tiny"},
            "candidate": {"model": "tiny", "recipe": [{"type": "quantize.rtn", "bits": 3, "group_size": 32}]},
            "text": {"source": "inline", "documents": DOCUMENTS},
            "calibrators": ["temperature", "lowrank", "lowrank+confidence"],
            "window": 64,
        }
        | changes
    )


@pytest.fixture(scope="module")
def done(
    settings: Settings, room: EngineRoom, tmp_path_factory: pytest.TempPathFactory
) -> tuple[CalibrateReport, Context]:
    context = Context(settings, tmp_path_factory.mktemp("job"))
    return calibrate(request(), context, room), context


def test_three_disjoint_sets_hold_every_domain(done: tuple[CalibrateReport, Context]) -> None:
    report, _ = done
    assert [part.name for part in report.sets] == ["fit", "choose", "test"]
    assert all(set(part.domains) == {"prose", "code"} for part in report.sets)
    assert sum(part.documents for part in report.sets) == len(DOCUMENTS)
    assert len({part.fingerprint for part in report.sets}) == 3
    assert report.tokens == report.sets[2].tokens
    assert report.documents == report.sets[2].documents


def test_every_number_can_be_had_again_from_the_values_of_the_test_tokens(
    done: tuple[CalibrateReport, Context],
) -> None:
    report, context = done
    raw, calibrated = (pq.read_table(context.output / f"{name}.parquet") for name in ("raw", "calibrated"))
    kl = {name: np.asarray(table["kl"]) for name, table in (("raw", raw), ("calibrated", calibrated))}
    assert report.raw.divergence.kl.mean == pytest.approx(kl["raw"].mean(), rel=1e-5)
    assert report.divergence.kl.mean == pytest.approx(kl["calibrated"].mean(), rel=1e-5)
    row = next(row for row in report.test.table if row.chosen)
    assert row.own.saved.mean == pytest.approx((kl["raw"] - kl["calibrated"]).mean(), rel=1e-3, abs=1e-7)
    domain = np.asarray(raw["domain"].to_pylist())
    for name, cell in row.domains.items():
        assert cell.saved.mean == pytest.approx(
            (kl["raw"] - kl["calibrated"])[domain == name].mean(), rel=1e-3, abs=1e-7
        )
    assert report.test.kl_high is not None
    assert report.divergence.kl.mean is not None
    assert report.test.kl_high >= report.divergence.kl.mean
    effects = report.test.effects
    assert effects is not None
    top1 = np.asarray(calibrated["top1_agree"]).mean() - np.asarray(raw["top1_agree"]).mean()
    assert effects.top1_agreement.change.mean == pytest.approx(top1, abs=1e-9)


def test_a_correction_that_helps_is_proven_and_its_profile_stored(
    done: tuple[CalibrateReport, Context], settings: Settings
) -> None:
    report, context = done
    assert report.test.passed, report.test.reasons
    assert report.served == report.profile
    store = ProfileStore(settings)
    profile = store.get(report.profile)
    assert profile.job == context.job_id
    assert profile.test == report.test
    assert profile.fit.candidate.recipe_fingerprint is not None
    assert {part.name for part in profile.fit.sets} == {"fit", "choose", "test"}
    store.load(report.profile, hidden_size=64, vocabulary=320)
    with pytest.raises(HemostatError) as caught:
        store.load(report.profile, hidden_size=65)
    assert caught.value.code is ErrorCode.PROFILE_MISMATCH


def test_phases_are_told_in_order_and_the_outcome_is_a_metric(done: tuple[CalibrateReport, Context]) -> None:
    _, context = done
    order = [phase for phase in context.phases if phase in {"text", *KEPT}]
    assert list(dict.fromkeys(order)) == ["text", "reference", "candidate", "fit", "choose", "test"]
    assert context.samples["calibrate_passed"] == 1
    assert 0 < context.samples["calibrate_saved_ratio"] < 1


def test_a_killed_attempt_is_gone_on_with_and_ends_in_the_same_profile(
    done: tuple[CalibrateReport, Context],
    settings: Settings,
    room: EngineRoom,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report, _ = done
    with pytest.raises(JobCancelled):
        calibrate(request(), Context(settings, tmp_path, stop_in="test"), room)
    kept = {
        file: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in (tmp_path / "partial").rglob("*")
        if file.is_file()
    }
    assert any(file.name == "test-opened.json" for file in kept), "the test had been opened"
    assert sum(file.name == "fit.json" for file in kept) == 3

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a finished fit is not repeated")

    monkeypatch.setattr(fits, "fit", refuse)
    context = Context(settings, tmp_path)
    again = calibrate(request(), context, room)
    assert again.profile == report.profile
    assert "reference" not in context.phases, "hidden states are read, not computed"
    opened = next(file for file in kept if file.name == "test-opened.json")
    assert again.test.opened_at == json.loads(opened.read_text())["at"]
    assert again.test.frozen == json.loads(opened.read_text())["frozen"]


class Interrupted(Context):
    """An attempt that makes way after so many looks at whether it should, in phases whose work is kept."""

    def __init__(self, settings: Settings, folder: Path, *, looks: int) -> None:
        super().__init__(settings, folder)
        self._looks = looks

    def check_cancelled(self) -> None:
        if self.phases and self.phases[-1] in KEPT:
            self._looks -= 1
        if self._looks < 0:
            raise JobCancelled


def test_attempts_that_make_way_again_and_again_end_in_the_same_profile(
    done: tuple[CalibrateReport, Context], settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    report, _ = done
    attempts = 0
    again: CalibrateReport | None = None
    while again is None:
        attempts += 1
        with contextlib.suppress(JobCancelled):
            again = calibrate(request(), Interrupted(settings, tmp_path, looks=40 + 10 * attempts), room)
    assert attempts > 2
    assert again.profile == report.profile
    assert again.test.table[0].own == report.test.table[0].own
    assert again.divergence == report.divergence
    left = [file.name for file in (tmp_path / "partial").rglob("*.part")]
    assert not any(name.startswith(("temperature", "lowrank")) for name in left), "finished fits leave no parts"


def test_what_does_not_prove_itself_is_not_served_and_says_why(
    settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    """Nothing was done to the candidate, so nothing can be saved."""
    context = Context(settings, tmp_path)
    report = calibrate(
        request(candidate={"model": "tiny"}, self_check=True, calibrators=["temperature"], metadata={"a": "b"}),
        context,
        room,
    )
    assert not report.test.passed
    assert (report.served, report.severity) == ("identity", "none")
    assert any("together" in reason for reason in report.test.reasons)
    assert "Identity is served" in report.verdict
    assert any("is not served" in line for line in context.logs)


def test_a_domain_that_is_not_fitted_is_tested_apart(settings: Settings, room: EngineRoom, tmp_path: Path) -> None:
    report = calibrate(
        request(fit_domains=["prose"], calibrators=["lowrank"], sampling=[]), Context(settings, tmp_path), room
    )
    assert set(report.sets[0].domains) == set(report.sets[1].domains) == {"prose"}
    row = report.test.table[0]
    assert row.other is not None
    assert row.other.tokens == row.domains["code"].tokens
    assert row.own.tokens == row.domains["prose"].tokens


def test_a_test_document_that_was_fitted_is_left_out(settings: Settings, room: EngineRoom, tmp_path: Path) -> None:
    tests = [*(document(number, "letters") for number in range(100, 106)), DOCUMENTS[0] | {"id": "copy"}]
    report = calibrate(
        request(test_text={"source": "inline", "documents": tests}, calibrators=["temperature"], sampling=[]),
        Context(settings, tmp_path),
        room,
    )
    assert report.sets[2].documents == 6
    assert any("same as one" in warning for warning in report.warnings)


def test_too_few_documents_are_refused(settings: Settings, room: EngineRoom, tmp_path: Path) -> None:
    with pytest.raises(HemostatError) as caught:
        calibrate(request(text={"source": "inline", "documents": DOCUMENTS[:1]}), Context(settings, tmp_path), room)
    assert caught.value.code is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("phase", ["fit", "choose"])
def test_it_stops_when_told_to(settings: Settings, room: EngineRoom, tmp_path: Path, phase: str) -> None:
    with pytest.raises(JobCancelled):
        calibrate(request(seed=7), Context(settings, tmp_path, stop_in=phase), room)
    assert not list((tmp_path / "partial").rglob("test-opened.json")), "the test stays sealed"
