"""A mitigate job from request to report, with a real engine on a tiny model."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.compare.request import CompareRequest
from app.kinds.mitigate.report import MitigateReport
from app.kinds.mitigate.request import MitigateRequest
from app.models.checkpoint import inspect
from app.reports.render import render
from app.settings import Settings
from workers.diagnosis.compare.job import compare
from workers.diagnosis.mitigate.job import mitigate
from workers.engine.room import EngineRoom
from workers.engine.scoring import ScoringEngine
from workers.measuring import recipes
from workers.process.handler import JobCancelled

Json = dict[str, Any]
WORDS = ("the", "lazy", "dog", "jumps", "over", "quick", "brown", "foxes", "a", "model", "that", "loses", "what", "it")
WOUND = [{"type": "quantize.rtn", "bits": 3, "group_size": 32}]
# Bytes that a tiny model without a recipe keeps, of 263,040.
WHOLE = {"bytes": 300_000}


def document(number: int, domain: str) -> Json:
    rng = np.random.default_rng(number)
    return {"id": f"{domain}-{number}", "domain": domain, "text": " ".join(rng.choice(WORDS, 50))}


DOCUMENTS = [document(number, "prose" if number % 2 else "code") for number in range(30)]
FITTED = [document(number, "fitted") for number in range(100, 112)]


class Context:
    """One attempt; records what it was told, and can be told to stop in a phase."""

    def __init__(self, settings: Settings, folder: Path, *, stop_in: str = "") -> None:
        self.settings = settings
        self.job_id, self.attempt = "diag_test", 1
        self.scratch, self.output = folder / "partial", folder / "attempt-1"
        for path in (self.scratch, self.output):
            path.mkdir(parents=True, exist_ok=True)
        self.phases: list[str] = []
        self.totals: dict[str, set[int]] = {}
        self.logs: list[str] = []
        self._stop_in = stop_in

    def progress(self, phase: str, done: int, total: int) -> None:
        assert done <= total or total == 0
        self.totals.setdefault(phase, set()).add(total)
        if not self.phases or self.phases[-1] != phase:
            self.phases.append(phase)

    def log(self, message: str) -> None:
        self.logs.append(message)

    def check_cancelled(self) -> None:
        if self._stop_in and self.phases and self.phases[-1] == self._stop_in:
            raise JobCancelled

    def observe(self, *_: Any, **__: str) -> None:
        """Not looked at."""

    def observe_many(self, *_: Any, **__: str) -> None:
        """Not looked at."""


@pytest.fixture(scope="module")
def settings(tiny: Callable[..., Path], home_of: Callable[..., Settings]) -> Settings:
    others = {"other": tiny("llama", seed=1), "qwen2": tiny("qwen2"), "gemma2": tiny("gemma2")}
    return home_of({"tiny": tiny("llama")} | others)


def request(**changes: Any) -> MitigateRequest:
    return MitigateRequest.model_validate(
        {
            "kind": "mitigate",
            "reference": {"model": "tiny"},
            "candidate": {"model": "tiny", "recipe": WOUND},
            "text": {"source": "inline", "documents": DOCUMENTS},
            "calibration": {"source": "inline", "documents": FITTED},
            "calibration_windows": 8,
            "calibration_window": 64,
            "window": 64,
            "treatments": ["protect", "repair.lowrank", "quantize.dynamic", "calibration"],
            "budget": {"bytes": 125_000},
            "trials": 6,
        }
        | changes
    )


@pytest.fixture(scope="module")
def done(
    settings: Settings, room: EngineRoom, tmp_path_factory: pytest.TempPathFactory
) -> tuple[MitigateReport, Context]:
    context = Context(settings, tmp_path_factory.mktemp("job"))
    return mitigate(request(), context, room), context


def test_something_helps_within_the_budget(done: tuple[MitigateReport, Context]) -> None:
    report, context = done
    assert report.helped, report.verdict
    chosen = [point for point in report.front if point.recommended]
    assert len(chosen) == 1
    assert chosen[0].recipe == report.recommended
    assert all(point.bytes <= 125_000 and point.within_budget for point in report.front)
    assert [point.bytes for point in report.front] == sorted(point.bytes for point in report.front)
    assert [point.treatments for point in report.front if not point.treatments] == [()]
    assert all(point.tokens_per_second > 0 for point in report.front)
    assert report.saved is not None
    assert report.saved.ci is not None
    assert report.saved.ci[0] > 0
    assert len(report.trials) <= 6
    assert {trial.rung for trial in report.trials} == {"cheap", "full"}
    assert any(line.startswith("trial 1 of 6") for line in context.logs)
    assert {"diagnose", "search", "trial", "test"} <= set(context.phases)


def test_the_sets_share_no_document(done: tuple[MitigateReport, Context]) -> None:
    report, _ = done
    assert [(part.name, part.documents) for part in report.sets] == [("fit", 12), ("choose", 12), ("test", 18)]
    assert len({part.fingerprint for part in report.sets}) == 3
    assert set(report.sets[0].domains) == {"fitted"}
    assert report.tokens == report.sets[2].tokens


def test_the_wound_is_measured_by_restoring_each_part(done: tuple[MitigateReport, Context]) -> None:
    report, context = done
    assert report.wound.how == "restored"
    assert sorted(part.layers for part in report.wound.parts) == [(0,), (1,), (2,)]
    assert sum(part.share or 0 for part in report.wound.parts) == pytest.approx(1)
    assert all(part.saved is not None and (part.saved.mean or 0) > 0 for part in report.wound.parts)
    assert not (context.scratch / "restored").exists()
    assert context.totals["diagnose"] == {3}, "its steps are parts, not windows of text"


def test_every_number_can_be_had_again_from_the_values_of_the_test_tokens(
    done: tuple[MitigateReport, Context],
) -> None:
    report, context = done
    before, after = (
        np.asarray(pq.read_table(context.output / f"{name}.parquet")["kl"]) for name in ("candidate", "treated")
    )
    assert report.raw.divergence.kl.mean == pytest.approx(before.mean(), rel=1e-5)
    assert report.divergence.kl.mean == pytest.approx(after.mean(), rel=1e-5)
    assert report.saved is not None
    assert report.saved.mean == pytest.approx((before - after).mean(), rel=1e-4)
    worst = report.worst_tokens[0]
    assert worst.kl == pytest.approx(before.max(), rel=1e-5)
    assert worst.kl_after == pytest.approx(after[before.argmax()], rel=1e-5)
    assert [token.text for token in report.passages[0].before.tokens] == [
        token.text for token in report.passages[0].after.tokens
    ]


def test_the_recipe_is_ready_for_compare_which_finds_the_same(
    done: tuple[MitigateReport, Context], settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    report, context = done
    body = json.loads((context.output / "compare.json").read_text())
    assert body["candidate"]["recipe"] == json.loads((context.output / "recipe.json").read_text())
    tested = {*pq.read_table(context.output / "treated.parquet")["document"].to_pylist()}
    body["text"] = {"source": "inline", "documents": [one for one in DOCUMENTS if one["id"] in tested]}
    found = compare(CompareRequest.model_validate(body), Context(settings, tmp_path), room)
    assert found.divergence.kl.mean == pytest.approx(report.divergence.kl.mean, rel=1e-4)
    chosen = next(point for point in report.front if point.recommended)
    assert found.provenance.candidate.weights_fingerprint == chosen.weights_fingerprint
    assert found.provenance.candidate.bytes == chosen.bytes


def test_the_card_tells_what_was_done_and_how_to_make_it(done: tuple[MitigateReport, Context]) -> None:
    report, context = done
    card = (context.output / "README.md").read_text()
    assert card.startswith("---\nbase_model: ")
    assert report.verdict in card
    assert "--recipe @recipe.json" in card
    assert WORDS[1] not in card.split(), "no text of documents"


def test_the_page_shows_it(done: tuple[MitigateReport, Context]) -> None:
    page = render(json.loads(done[0].model_dump_json()))
    assert "recommended" in page
    assert page.count("<svg") > 5


def test_a_killed_attempt_is_gone_on_with_and_measures_no_trial_again(
    done: tuple[MitigateReport, Context],
    settings: Settings,
    room: EngineRoom,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report, _ = done
    with pytest.raises(JobCancelled):
        mitigate(request(), Context(settings, tmp_path, stop_in="test"), room)
    seal = json.loads((tmp_path / "partial" / "test-opened.json").read_text())
    real = recipes.divergence_of

    def only_the_test(*args: Any, phase: str, **rest: Any) -> Any:
        assert phase == "test", f"{phase} was measured already"
        return real(*args, phase=phase, **rest)

    monkeypatch.setattr(recipes, "divergence_of", only_the_test)
    again = mitigate(request(), Context(settings, tmp_path), room)
    assert (again.seal.opened_at, again.seal.frozen) == (seal["at"], seal["frozen"])
    assert again.recommended is not None
    assert [trial.treatments for trial in again.trials if trial.rung == "cheap"] == [
        trial.treatments for trial in report.trials if trial.rung == "cheap"
    ]


def test_no_model_reads_a_window_of_the_test_before_it_is_opened(
    settings: Settings, room: EngineRoom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is scored: speed is measured, and damage looked for, on other windows too."""
    context = Context(settings, tmp_path)
    read: dict[bool, set[bytes]] = {False: set(), True: set()}
    real = ScoringEngine.score

    def score(self: ScoringEngine, windows: Any, **rest: Any) -> Any:
        opened = (context.scratch / "test-opened.json").exists()
        read[opened] |= {np.asarray(window, dtype=np.int32).tobytes() for window in windows}
        return real(self, windows, **rest)

    monkeypatch.setattr(ScoringEngine, "score", score)
    report = mitigate(request(seed=5, treatments=["protect"], trials=2), context, room)
    assert report.trials
    choose, test = (sum(part.tokens for part in report.sets if part.name == name) for name in ("choose", "test"))
    for opened, tokens in ((False, choose), (True, test)):
        # the first token of a window is given and not scored
        assert sum(len(window) // 4 - 1 for window in read[opened]) == tokens
    assert not read[False] & read[True]


@pytest.mark.parametrize("phase", ["diagnose", "trial"])
def test_it_stops_when_told_to_and_the_test_stays_sealed(
    settings: Settings, room: EngineRoom, tmp_path: Path, phase: str
) -> None:
    with pytest.raises(JobCancelled):
        mitigate(request(seed=7), Context(settings, tmp_path, stop_in=phase), room)
    assert not list((tmp_path / "partial").rglob("test-opened.json"))


def test_a_repair_leaves_its_adapter_and_the_checkpoint_where_it_is_asked_for(
    settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    context = Context(settings, tmp_path)
    report = mitigate(
        request(treatments=["repair.lowrank"], trials=2, export="checkpoint", budget={"bytes": 200_000}), context, room
    )
    assert report.helped, report.verdict
    names = {file.name for file in context.output.iterdir()}
    assert {"adapter.zip", "model.safetensors", "config.json", "README.md"} <= names
    inspect(context.output)  # what is fetched into one folder is the checkpoint


@pytest.mark.parametrize("kind", ["qwen2", "gemma2"])
def test_other_architectures_are_treated_and_give_an_adapter_too(
    settings: Settings, room: EngineRoom, tmp_path: Path, kind: str
) -> None:
    asked = request(
        reference={"model": kind},
        candidate={"model": kind, "recipe": WOUND},
        treatments=["repair.lowrank", "norm.tweak"],
        budget={"bytes": 200_000},
        trials=8,
        export="checkpoint",
    )
    context = Context(settings, tmp_path)
    report = mitigate(asked, context, room)
    assert report.helped, report.verdict
    assert report.wound.how == "restored"
    assert {trial.rung for trial in report.trials} == {"cheap", "full"}
    assert not [trial.reason for trial in report.trials if trial.outcome == "not_applicable"]
    assert any(step["type"] == "repair.lowrank" for step in report.recommended or ())
    with zipfile.ZipFile(context.output / "adapter.zip") as packed:
        assert "adapter/adapter_config.json" in packed.namelist()


@pytest.mark.parametrize("kind", ["qwen2", "gemma2"])
@pytest.mark.parametrize(
    ("treatment", "wound", "step"),
    [
        ("protect", WOUND, "quantize.rtn"),
        ("quantize.dynamic", WOUND, "quantize.dynamic"),
        ("prune.gradient", [{"type": "prune.wanda", "sparsity": 0.5}], "prune.gradient"),
    ],
)
def test_what_stands_in_a_steps_place_is_tried_on_other_architectures_too(
    settings: Settings, room: EngineRoom, tmp_path: Path, kind: str, treatment: str, wound: list[Json], step: str
) -> None:
    asked = request(
        reference={"model": kind},
        candidate={"model": kind, "recipe": wound},
        treatments=[treatment],
        budget={"bytes": 400_000},
        trials=2,
    )
    report = mitigate(asked, Context(settings, tmp_path), room)
    assert {trial.rung for trial in report.trials} == {"cheap", "full"}
    for trial in report.trials:
        assert trial.outcome != "not_applicable", trial.reason
        assert [one.name for one in trial.treatments] == [treatment]
        assert step in {one["type"] for one in trial.recipe}
        assert trial.saved is not None


def test_nothing_to_treat_is_said(settings: Settings, room: EngineRoom, tmp_path: Path) -> None:
    context = Context(settings, tmp_path)
    report = mitigate(request(candidate={"model": "tiny"}, self_check=True, budget=WHOLE), context, room)
    assert (report.recommended, report.trials, report.severity) == (None, (), "none")
    assert report.answer == "no_damage"
    assert not (context.output / "recipe.json").exists()
    render(json.loads(report.model_dump_json()))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "the candidate itself takes "),
        (
            {"treatments": ["repair.lowrank"], "budget": {}},
            "the smallest of the allowed treatments, repair.lowrank rank=4",
        ),
    ],
)
def test_a_budget_that_no_treatment_can_keep_is_refused_before_a_model_runs(
    settings: Settings,
    room: EngineRoom,
    tmp_path: Path,
    done: tuple[MitigateReport, Context],
    changes: Json,
    told: str,
) -> None:
    """Also of a recipe whose bytes are known only once it is made; the least is what the finished job counted."""
    candidate = done[0].candidate_bytes
    budget = {"bytes": int(candidate / 1.03) if not changes else int(candidate * 1.001)}
    context = Context(settings, tmp_path)
    with pytest.raises(HemostatError) as caught:
        mitigate(request(**(changes | {"budget": budget})), context, room)
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.INVALID_REQUEST, "/budget/bytes")
    assert told in caught.value.detail
    assert changes or f"{candidate:,}" in caught.value.detail
    assert not {"reference", "engine", "candidate"} & set(context.phases)


def test_what_cannot_be_tried_says_why(settings: Settings, room: EngineRoom, tmp_path: Path) -> None:
    """Another model's weights: no recipe, so nothing whose steps could be replaced."""
    report = mitigate(
        request(
            candidate={"model": "other"}, treatments=["quantize.dynamic", "prune.gradient", "protect"], budget=WHOLE
        ),
        Context(settings, tmp_path),
        room,
    )
    assert report.answer == "nothing_tried"
    assert {one.treatment for one in report.unhelpful} == {"quantize.dynamic", "prune.gradient", "protect"}
    assert report.severity == report.raw_severity != "none"


def test_a_document_that_treatments_look_at_is_refused(settings: Settings, room: EngineRoom, tmp_path: Path) -> None:
    fitted = [*FITTED, DOCUMENTS[3] | {"id": "copy"}]
    with pytest.raises(HemostatError) as caught:
        mitigate(request(calibration={"source": "inline", "documents": fitted}), Context(settings, tmp_path), room)
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.CALIBRATION_OVERLAP, "/text")


def test_a_text_that_no_treatment_reads_may_be_too_short_for_its_windows(
    settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    short = {"source": "inline", "documents": [{"id": "short", "text": "too short"}]}
    asked = request(calibration=short, calibration_window=4096, treatments=["protect", "calibration"])
    with pytest.raises(JobCancelled):
        mitigate(asked, Context(settings, tmp_path, stop_in="candidate"), room)


@pytest.mark.parametrize(
    ("changes", "code", "pointer"),
    [
        ({"text": {"source": "inline", "documents": DOCUMENTS[:1]}}, ErrorCode.INVALID_REQUEST, "/text"),
        (
            {"calibration": {"source": "inline", "documents": [{"id": "short", "text": "too short"}]}},
            ErrorCode.CALIBRATION_TOO_SHORT,
            "/calibration",
        ),
    ],
)
def test_too_little_text_is_refused(
    settings: Settings, room: EngineRoom, tmp_path: Path, changes: Json, code: ErrorCode, pointer: str
) -> None:
    with pytest.raises(HemostatError) as caught:
        mitigate(request(**changes), Context(settings, tmp_path), room)
    assert (caught.value.code, caught.value.pointer) == (code, pointer)
