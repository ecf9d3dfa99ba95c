"""What a compare job tells of the recipe that made its candidate, with a real engine on a tiny model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.reports.render import render
from app.settings import Settings
from tests.integration.workers.diagnosis.test_compare_classes import request, words
from tests.support.attempts import Context
from workers.diagnosis.compare.job import compare
from workers.engine.room import EngineRoom
from workers.measuring.pair import MANIFEST_FILE
from workers.measuring.sides import checkpoint_store
from workers.surgery.manifest import MANIFEST, Manifest

Json = dict[str, Any]
DOCUMENTS = [{"id": f"d{number}", "text": words(number, 40)} for number in range(6)]
# Two windows of 16 tokens: fewer than a layer has inputs, and than are asked for.
SHORT: Json = {
    "calibration": {"source": "inline", "documents": [{"id": "c", "text": words(100, 20)}]},
    "calibration_windows": 8,
    "calibration_window": 16,
}
RECIPE: list[Json] = [
    {"type": "prune.magnitude", "sparsity": 0.5},
    {"type": "quantize.gptq", "bits": 4, "group_size": 32, **SHORT},
]


@pytest.fixture(scope="module")
def settings(tiny: Callable[..., Path], home_of: Callable[..., Settings]) -> Settings:
    return home_of({"tiny": tiny("llama")})


def test_warnings_of_its_steps_are_the_reports_and_its_manifest_is_an_artifact(
    settings: Settings, room: EngineRoom, tmp_path: Path
) -> None:
    context = Context(settings, tmp_path)
    report = compare(request(DOCUMENTS, candidate={"model": "tiny", "recipe": RECIPE}), context, room)
    told = [warning for warning in report.warnings if warning.facts.get("made_by") == ("quantize.gptq",)]
    assert any(warning.facts.get("asked") == 8 for warning in told)
    assert any(warning.code == "singular_moment" for warning in told)
    assert told[0].text in render(json.loads(report.model_dump_json()))

    written = (context.output / MANIFEST_FILE).read_text(encoding="utf-8")
    manifest = Manifest.model_validate_json(written)
    stored = checkpoint_store(context).root / manifest.key / MANIFEST  # type: ignore[arg-type]
    assert manifest == Manifest.model_validate_json(stored.read_bytes())
    assert manifest.fingerprint == report.provenance.candidate.weights_fingerprint
    assert report.provenance.execution == "eager with fused norms, batches of at most 512 tokens"
    candidate, reference = report.provenance.candidate, report.provenance.reference
    assert candidate.bytes is not None
    assert candidate.file_bytes == manifest.file_bytes > candidate.bytes, "simulated: what is served is not smaller"
    assert reference.file_bytes == reference.bytes
    zeros = sum(change.zeros for change in manifest.tensors) / sum(change.elements for change in manifest.tensors)
    assert candidate.sparsity == zeros >= candidate.nominal_sparsity == 0.5
    assert reference.sparsity is None
    assert [step.types for step in manifest.steps] == [("prune.magnitude",), ("quantize.gptq",)]
    assert all(step.seconds > 0 for step in manifest.steps)
    assert manifest.file_bytes > 0
    for change in manifest.tensors:
        assert change.nominal_sparsity == 0.5
        assert change.sparsity >= 0.5
        assert change.bits_per_weight == 4 + 20 / 32
        assert change.reconstruction_error is not None
    assert words(100, 20) not in written


def test_a_candidate_without_a_recipe_has_no_manifest(settings: Settings, room: EngineRoom, tmp_path: Path) -> None:
    context = Context(settings, tmp_path)
    compare(request(DOCUMENTS, candidate={"model": "tiny", "recipe": []}, self_check=True), context, room)
    assert [file.name for file in context.output.iterdir()] == ["tokens.parquet"]
