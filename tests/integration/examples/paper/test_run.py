"""Claims through a real service of their own, on a tiny model: measured once, judged, published, and kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.contracts.errors import HemostatError
from app.settings import Settings
from examples.paper.__main__ import paper
from examples.paper.claim import claims

Json = dict[str, Any]
DOCUMENTS = [
    {"id": f"d{n}", "text": " ".join(f"the lazy dog number {n * step} jumps over {step} foxes" for step in range(1, 6))}
    for n in range(12)
]


def job(**changes: Any) -> Json:
    recipe: list[Json] = [{"type": "quantize.gptq", "bits": {"sweep": [8, 4, 3, 2]}, "group_size": 32}]
    fitted = {
        "source": "inline",
        "documents": [{"id": "f", "text": " ".join(f"what it loses is {n}" for n in range(90))}],
    }
    recipe[0] |= {"calibration_windows": 2, "calibration_window": 64, "calibration": fitted}
    return {
        "kind": "sweep",
        "reference": {"model": "tiny"},
        "candidate": {"model": "tiny", "recipe": recipe},
        "text": {"source": "inline", "documents": DOCUMENTS},
        "window": 64,
    } | changes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two claims: one whose jobs can be measured, and one whose job cannot."""
    (tmp_path / "claims").mkdir()
    (tmp_path / "jobs").mkdir()
    real = {claim.id: claim for claim in claims()}
    broken = real["gradient-pruning"].model_copy(update={"jobs": ("gradient-half",)})
    for number, claim in enumerate((broken, real["cliff"])):
        (tmp_path / "claims" / f"{number}.json").write_text(claim.model_dump_json())
    (tmp_path / "jobs" / "gptq-bits.json").write_text(json.dumps(job()))
    rounded = [{"type": "quantize.rtn", "bits": {"sweep": [8, 4, 3, 2]}, "group_size": 32}]
    (tmp_path / "jobs" / "rtn-bits.json").write_text(json.dumps(job(candidate={"model": "tiny", "recipe": rounded})))
    missing = job(kind="compare", candidate={"model": "nobody", "recipe": []})
    (tmp_path / "jobs" / "gradient-half.json").write_text(json.dumps(missing))
    return tmp_path


def test_a_claim_is_measured_though_another_ones_job_fails_and_no_job_runs_twice(
    tiny: Callable[..., Path], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "models.toml").write_text(f'[models.tiny]\npath = "{tiny("llama")}"\n')
    configured = Settings(home=home, engine_batch_tokens=1024, engine_kv_cache_bytes=16 * 1024 * 1024)
    output = tmp_path / "docs"

    broken, cliff = paper(configured, output, folder=folder).claims.values()
    assert broken.finding.outcome == "not measured"
    assert "nobody" in broken.finding.sentence
    # Random weights hardly mind few bits: at two the whole interval is still within near-lossless.
    assert cliff.finding.outcome == "refuted", cliff.finding.sentence
    assert [figure.what for figure in cliff.finding.figures[:2]] == ["GPTQ, 8 bits", "GPTQ, 4 bits"]
    assert cliff.finding.figures[1].value == pytest.approx(1.0, abs=0.02)
    assert "refuted" in (output / "paper.md").read_text()
    kept = {path.name: path.stat().st_mtime_ns for path in (home / "paper").iterdir()}
    assert len(kept) == 2

    capsys.readouterr()
    (folder / "jobs" / "gradient-half.json").write_text(json.dumps(job(kind="compare", candidate={"model": "tiny"})))
    again = paper(configured, output, folder=folder).claims["cliff"]
    assert "1 of 3 jobs are to be run" in capsys.readouterr().err
    assert again.finding == cliff.finding
    assert {name: (home / "paper" / name).stat().st_mtime_ns for name in kept} == kept


def test_a_job_that_no_claim_has_is_refused_before_anything_starts(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(HemostatError, match="no claim has a job half") as caught:
        paper(Settings(home=tmp_path / "home"), tmp_path / "docs", folder=folder, only=["half"])
    assert caught.value.hint == "there are: gradient-half, gptq-bits, rtn-bits"
    assert not (tmp_path / "docs").exists()
