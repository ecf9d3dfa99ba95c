"""One real service for all end-to-end tests: embedded Valkey, API, worker, vLLM; tiny models and the demo model."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from playwright.sync_api import Browser
from safetensors.torch import load_file, save_file

from app.cli.client import Client
from app.contracts.job import JobStatus
from app.jobs.embedded import EmbeddedValkey
from app.jobs.record import JobRecord
from app.settings import Settings
from app.up import Service, running
from tests.support.browser import started
from tests.support.packed import make_packed

Json = dict[str, Any]

# Documents are clusters of the interval; enough of them, short, of unequal length and of two domains.
DOCUMENTS: list[Json] = [
    {
        "id": f"d{number}",
        "domain": "prose" if number % 3 else "code",
        "text": " ".join(
            f"the lazy dog number {number * step} jumps over {step} quick foxes" for step in range(1, 4 + number % 5)
        ),
    }
    for number in range(24)
]


def compare_request(candidate: str = "tiny", recipe: list[Json] | None = None, **fields: Any) -> Json:
    """A job on tiny models."""
    return {
        "kind": "compare",
        "reference": {"model": "tiny"},
        "self_check": candidate == "tiny" and not recipe,
        "candidate": {"model": candidate, "recipe": recipe or []},
        "text": {"source": "inline", "documents": DOCUMENTS},
        "window": 64,
    } | fields


def _edited(source: Path, folder: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _with_nan(weights: dict[str, torch.Tensor]) -> None:
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")


def _overflowing(weights: dict[str, torch.Tensor]) -> None:
    """Finite weights whose activations are not."""
    weights["model.layers.2.mlp.up_proj.weight"].fill_(3e38)
    weights["model.layers.2.mlp.down_proj.weight"].fill_(3e38)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. Of one file only: its loop would run under the tests of other files."""
    with started() as opened:
        yield opened


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[..., Path], smollm2: Path) -> Path:
    """A home whose models.toml names sound, packed and broken checkpoints."""
    folder = tmp_path_factory.mktemp("home")
    models = folder / "models"
    reference = tiny("llama")
    made: dict[str, Path] = {
        "tiny": reference,
        "tiny-other-weights": tiny("llama", seed=7),
        "tiny-qwen2": tiny("qwen2"),
        "tiny-w8a8": make_packed(reference, models / "tiny-w8a8", "W8A8"),
        "tiny-w4a16": make_packed(reference, models / "tiny-w4a16", "W4A16"),
        "tiny-nan": _edited(reference, models / "tiny-nan", _with_nan),
        "tiny-overflowing": _edited(reference, models / "tiny-overflowing", _overflowing),
        "tiny-padded": tiny("llama-padded"),
        "smollm2-135m": smollm2,
    }
    lines = [f'[models.{alias}]\npath = "{path}"\n' for alias, path in made.items()]
    (folder / "models.toml").write_text("\n".join(lines))
    (folder / "texts").mkdir()
    return folder


@pytest.fixture(scope="session")
def settings(home: Path) -> Settings:
    """Settings of the service: small enough to be quick, nothing else unusual."""
    return Settings(home=home, text_root=home / "texts", redelivery_s=2.0, requests_per_minute=100_000)


@pytest.fixture(scope="session")
def service(settings: Settings) -> Iterator[Service]:
    """The running service."""
    with running(settings) as up:
        yield up


@pytest.fixture
def house(tmp_path: Path, tiny: Callable[..., Path]) -> Iterator[Settings]:
    """A home of its own with a tiny model and Valkey, for workers that the test starts and kills."""
    own = Settings(home=tmp_path / "home", worker_metrics_port=0, redelivery_s=2.0, cancel_grace_s=30.0)
    own.home.mkdir()
    own.models_file.write_text(f'[models.tiny]\npath = "{tiny("llama")}"\n')
    with EmbeddedValkey(own):
        yield own


def report_of(settings: Settings, record: JobRecord) -> str:
    """The report of a job that succeeded, as its file has it."""
    assert record.job.status is JobStatus.SUCCEEDED, record.job.error
    assert record.report is not None
    return (settings.job_dir(record.job.id) / record.report).read_text()


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    """The command line's own client."""
    with Client(service.url) as opened:
        yield opened


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    """A bare HTTP client."""
    with httpx.Client(base_url=service.url, timeout=60) as opened:
        yield opened


@pytest.fixture
def finish(client: Client) -> Callable[[Json], Json]:
    """Submits a job, follows its events to the end, and returns it."""

    def run(request: Json) -> Json:
        job = client.submit(request)
        for _name, _data in client.watch(job["id"]):
            pass
        return client.job(job["id"])

    return run


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    """Environment for a `hemostat` process that uses this home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEMOSTAT_")}
    return kept | {"HEMOSTAT_HOME": str(settings.home), "HEMOSTAT_TEXT_ROOT": str(settings.text_root), "COLUMNS": "100"}
